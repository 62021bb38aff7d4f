//! Dates as people write them, and as ISO 8601 does.

use candle_core::{Device, Result, Tensor};

/// What texts are made of; position 0 is padding.
const LETTERS: &str = "\0 ,./0123456789abcdefghijklmnopqrstuvwxyzADFJMNOSTW";
pub(crate) const IN_VOCABULARY: usize = LETTERS.len();
/// What dates are made of; position 0 begins.
const DIGITS: &str = "^-0123456789";
pub(crate) const OUT_VOCABULARY: usize = DIGITS.len();
/// Characters of `YYYY-MM-DD`.
pub(crate) const OUT_LEN: usize = 10;

const MONTHS: [&str; 12] =
    ["January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December"];
const DAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

/// SplitMix64 (Steele, Lea & Flood 2014).
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.bits() % n as u64) as usize
    }

    /// Between −1 and 1.
    pub(crate) fn signed(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }
}

/// A text and its date; one date in seven is held out, and drawn only where it is asked for.
pub(crate) fn draw(rng: &mut Rng, held_out: bool) -> (String, String) {
    loop {
        let (year, month) = (1900 + rng.below(200), 1 + rng.below(12));
        let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
        let days = match month {
            2 => 28 + usize::from(leap),
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
        let day = 1 + rng.below(days);
        if ((year * 12 + month) * 31 + day).is_multiple_of(7) == held_out {
            return (text(rng, year, month, day), format!("{year:04}-{month:02}-{day:02}"));
        }
    }
}

fn text(rng: &mut Rng, year: usize, month: usize, day: usize) -> String {
    let (name, short) = (MONTHS[month - 1], &MONTHS[month - 1][..3]);
    let ordinal = match day {
        1 | 21 | 31 => "st",
        2 | 22 => "nd",
        3 | 23 => "rd",
        _ => "th",
    };
    let date = match rng.below(8) {
        0 => format!("{day}{ordinal} of {name}, {year}"),
        1 => format!("the {day}{ordinal} of {name} {year}"),
        2 => format!("{name} {day}, {year}"),
        3 => format!("{short}. {day}{ordinal}, {year}"),
        4 => format!("{day} {short} {year}"),
        5 => format!("{year} {name} {day}"),
        6 => format!("{day:02}.{month:02}.{year}"),
        _ => format!("{month}/{day}/{year}"),
    };
    // Noise: a weekday, right or wrong.
    let weekday = DAYS[rng.below(7)];
    match rng.below(4) {
        0 => format!("{weekday}, {date}"),
        1 => format!("{} {date}", &weekday[..3]),
        _ => date,
    }
}

/// Texts of one length, filled up with padding, and their dates.
pub(crate) struct Batch {
    /// `[batch, length]`
    pub(crate) text: Tensor,
    /// Characters of each text.
    pub(crate) lengths: Vec<u32>,
    /// `[batch, OUT_LEN]`
    pub(crate) date: Tensor,
}

impl Batch {
    pub(crate) fn of(pairs: &[(String, String)]) -> Result<Self> {
        let longest = pairs.iter().map(|(text, _)| text.len()).max().unwrap_or(0);
        let padded = pairs.iter().flat_map(|(text, _)| text.chars().chain(std::iter::repeat('\0')).take(longest));
        let text: Vec<u32> = padded.map(|c| index(LETTERS, c)).collect();
        let date: Vec<u32> = pairs.iter().flat_map(|(_, date)| date.chars().map(|c| index(DIGITS, c))).collect();
        Ok(Self {
            text: Tensor::from_vec(text, (pairs.len(), longest), &Device::Cpu)?,
            lengths: pairs.iter().map(|(text, _)| text.len() as u32).collect(),
            date: Tensor::from_vec(date, (pairs.len(), OUT_LEN), &Device::Cpu)?,
        })
    }

    /// 1 where a text is padding, `[batch, length]`.
    pub(crate) fn padding(&self) -> Result<Tensor> {
        self.text.eq(0u32)
    }
}

fn index(vocabulary: &str, c: char) -> u32 {
    vocabulary.find(c).unwrap_or(0) as u32
}

/// A date from the numbers of its characters.
pub(crate) fn spell(numbers: &[u32]) -> String {
    numbers.iter().filter_map(|&n| DIGITS.chars().nth(n as usize)).collect()
}
