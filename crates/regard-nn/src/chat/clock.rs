//! `strftime_now`: a time in UTC by the directives of C, in English.

use std::time::{SystemTime, UNIX_EPOCH};

const MONTHS: [&str; 12] =
    ["January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December"];
const DAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

struct Date {
    year: i64,
    /// From 1.
    month: i64,
    day: i64,
    /// From 0 for Monday.
    weekday: i64,
    /// From 1.
    day_of_year: i64,
}

impl Date {
    /// The date of a day after 1970-01-01, in years that begin in March and eras of 400 years.
    ///
    /// Source: Hinnant 2013, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`.
    fn from_days(days: i64) -> Self {
        let shifted = days + 719_468;
        let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_from_march = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_from_march + 2) / 153;
        let day = day_from_march - (153 * month_from_march + 2) / 5 + 1;
        let month = (month_from_march + 2) % 12 + 1;
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let day_of_year = if month <= 2 { day_from_march - 305 } else { day_from_march + 60 + i64::from(leap) };
        Self { year, month, day, weekday: (days + 3).rem_euclid(7), day_of_year }
    }
}

/// Bytes of a format.
const FORMAT: usize = 1000;

/// The time in a format; else what is wrong with it.
pub(super) fn strftime(now: SystemTime, format: &str) -> Result<String, String> {
    if format.len() > FORMAT {
        return Err(format!("strftime_now got a format of {} bytes and needs at most {FORMAT}", format.len()));
    }
    let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()) as i64;
    let date = Date::from_days(seconds.div_euclid(86_400));
    let mut text = String::new();
    let mut rest = format.chars();
    while let Some(letter) = rest.next() {
        if letter != '%' {
            text.push(letter);
            continue;
        }
        let directive = rest.next();
        let (directive, bare) = if directive == Some('-') { (rest.next(), true) } else { (directive, false) };
        let part = directive.and_then(|directive| part(&date, seconds % 86_400, directive));
        let part = part.ok_or_else(|| {
            let directive = directive.map_or("%".to_owned(), |directive| format!("%{directive}"));
            format!("strftime_now got {directive:?} in {format:?}, which is no directive it knows")
        })?;
        let bare_part = part.trim_start_matches(['0', ' ']);
        text.push_str(match bare_part {
            _ if !bare => &part,
            "" => "0",
            number => number,
        });
    }
    Ok(text)
}

/// One directive at a second of a day.
fn part(date: &Date, second: i64, directive: char) -> Option<String> {
    let (hour, minute, month, weekday) =
        (second / 3600, second / 60 % 60, MONTHS[date.month as usize - 1], DAYS[date.weekday as usize]);
    let whole = |format: [char; 5]| {
        format.iter().map(|&d| if d.is_alphabetic() { part(date, second, d) } else { Some(d.into()) }).collect()
    };
    Some(match directive {
        'Y' => date.year.to_string(),
        'y' => format!("{:02}", date.year % 100),
        'm' => format!("{:02}", date.month),
        'd' => format!("{:02}", date.day),
        'e' => format!("{:2}", date.day),
        'j' => format!("{:03}", date.day_of_year),
        'B' => month.to_owned(),
        'b' | 'h' => month[..3].to_owned(),
        'A' => weekday.to_owned(),
        'a' => weekday[..3].to_owned(),
        'H' => format!("{hour:02}"),
        'I' => format!("{:02}", (hour + 11) % 12 + 1),
        'M' => format!("{minute:02}"),
        'S' => format!("{:02}", second % 60),
        'p' => if hour < 12 { "AM" } else { "PM" }.to_owned(),
        'F' => return whole(['Y', '-', 'm', '-', 'd']),
        'D' => return whole(['m', '/', 'd', '/', 'y']),
        'T' => return whole(['H', ':', 'M', ':', 'S']),
        'Z' => "UTC".to_owned(),
        'z' => "+0000".to_owned(),
        '%' => "%".to_owned(),
        _ => return None,
    })
}
