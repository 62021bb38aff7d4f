//! Integers as people read them: four digits and a unit of powers of a thousand.

use regard_cost::Count;

/// `1610612736` bytes as `1.611 GB`.
pub(super) fn bytes(n: Count) -> String {
    scaled(n, &["B", "kB", "MB", "GB", "TB", "PB", "EB"])
}

/// `1610612736` operations as `1.611 GFLOP`.
pub(super) fn flops(n: Count) -> String {
    scaled(n, &["FLOP", "kFLOP", "MFLOP", "GFLOP", "TFLOP", "PFLOP", "EFLOP", "ZFLOP", "YFLOP"])
}

/// `174604259328` as `174.6 billion`.
pub(super) fn many(n: Count) -> String {
    scaled(n, &["", "thousand", "million", "billion", "trillion"])
}

/// Nanoseconds as `1.611 s`, and above a minute and a half as minutes, hours or days.
pub(super) fn time(ns: Count) -> String {
    let seconds = ns.get() as f64 / 1e9;
    for (unit, long) in [("days", 86_400.0), ("hours", 3_600.0), ("minutes", 60.0)] {
        if seconds >= 1.5 * long {
            return format!("{} {unit}", digits(seconds / long));
        }
    }
    if seconds >= 1.0 { format!("{} s", digits(seconds)) } else { scaled(ns, &["ns", "µs", "ms"]) }
}

/// `1610612736` as `1,610,612,736`.
pub(super) fn whole(n: impl ToString) -> String {
    let text = n.to_string();
    let groups: Vec<&str> = (0..text.len())
        .filter(|i| *i == 0 || (text.len() - i).is_multiple_of(3))
        .map(|i| &text[i..(i + 1..text.len()).find(|end| (text.len() - end).is_multiple_of(3)).unwrap_or(text.len())])
        .collect();
    groups.join(",")
}

fn scaled(n: Count, units: &[&str]) -> String {
    let mut power = 0;
    let mut x = n.get() as f64;
    while x >= 999.95 && power + 1 < units.len() {
        (x, power) = (x / 1000.0, power + 1);
    }
    let number = if power == 0 { n.to_string() } else { digits(x) };
    format!("{number} {}", units[power]).trim_end().to_owned()
}

/// Four digits of a number from 1 up.
fn digits(x: f64) -> String {
    let behind = if x < 10.0 {
        3
    } else if x < 100.0 {
        2
    } else {
        usize::from(x < 1000.0)
    };
    format!("{x:.behind$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_easily() {
        let all = [
            (bytes(Count::from(819_200)), "819.2 kB"),
            (bytes(Count::from(999)), "999 B"),
            (bytes(Count::from(1_610_612_736)), "1.611 GB"),
            (bytes(Count::from(999_960)), "1.000 MB"),
            (flops(Count::from(u64::MAX)), "18.45 EFLOP"),
            (many(Count::from(174_604_259_328)), "174.6 billion"),
            (many(Count::from(0)), "0"),
            (time(Count::from(1_234)), "1.234 µs"),
            (time(Count::from(2_000_000_000)), "2.000 s"),
            (time(Count::from(89_000_000_000)), "89.00 s"),
            (time(Count::from(7_200_000_000_000)), "2.000 hours"),
            (whole(12), "12"),
            (whole(1_234_567), "1,234,567"),
            (whole(123_456), "123,456"),
        ];
        for (ours, expected) in all {
            assert_eq!(ours, expected);
        }
    }
}
