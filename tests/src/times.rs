//! Times of answers, as numbers.

use serde_json::Value;

use crate::form;

/// Milliseconds since 1970 of a time as the contract writes it.
#[track_caller]
pub fn millis(time: &Value) -> i64 {
    let text = time.as_str().unwrap_or_else(|| panic!("{time} is not a time"));
    assert!(form::is_time(text), "{text}");
    let number = |from: usize, to: usize| text[from..to].parse::<i64>().expect("digits");
    // Days since 1970-01-01 by the civil calendar, whose years are counted from March here.
    let (year, month, day) = (number(0, 4), number(5, 7), number(8, 10));
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = 365 * year + year / 4 - year / 100 + year / 400 + day_of_year - 719_468;
    (((days * 24 + number(11, 13)) * 60 + number(14, 16)) * 60 + number(17, 19)) * 1000 + number(20, 23)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[test]
    fn known_moments() {
        assert_eq!(super::millis(&json!("1970-01-01T00:00:00.000Z")), 0);
        assert_eq!(super::millis(&json!("2023-11-14T22:13:20.120Z")), 1_700_000_000_120);
        assert_eq!(super::millis(&json!("2024-02-29T00:00:00.000Z")), 1_709_164_800_000);
    }
}
