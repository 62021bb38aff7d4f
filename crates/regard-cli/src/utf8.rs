//! Bytes that users give as text.

/// The text, or where it is none.
pub(crate) fn utf8(bytes: Vec<u8>, what: &str) -> Result<String, String> {
    String::from_utf8(bytes).map_err(|wrong| {
        let offset = wrong.utf8_error().valid_up_to();
        format!("{what} is not UTF-8: the byte at offset {offset} begins no character")
    })
}
