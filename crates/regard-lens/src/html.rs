//! The report as one page that needs no network: the built page of `ui/`, with the data in it.

use crate::{Report, Result};

/// The built page; a test holds it to `ui/dist/report.html`.
const PAGE: &str = include_str!("report.html");
const EMPTY: &str = r#"<script id="regard-data" type="application/json">null</script>"#;

impl Report {
    /// A page for any browser.
    ///
    /// # Errors
    /// As [`Report::json`].
    pub fn html(&self) -> Result<String> {
        // No text of a token can end the script.
        let data = self.json()?.replace('<', "\\u003c");
        Ok(PAGE.replacen(EMPTY, &EMPTY.replace("null", &data), 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_one_place_for_the_data() {
        assert_eq!(PAGE.matches(EMPTY).count(), 1);
    }

    #[test]
    fn the_page_is_the_built_one() {
        let built = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../ui/dist/report.html");
        // The packaged crate stands alone.
        if let Ok(built) = std::fs::read_to_string(built) {
            assert!(built == PAGE, "the page was built anew: cp ui/dist/report.html crates/regard-lens/src/report.html");
        }
    }
}
