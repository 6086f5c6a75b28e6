//! Kubernetes quantities as numbers, to compare two ways of writing the same amount.
//! It must never be used to write a quantity: what a user wrote is passed on as it is.
//!
//! The grammar is that of apimachinery's `resource.Quantity`: a decimal number and one suffix (`m`, `k`, `Mi`, …) or a
//! decimal exponent.

/// The value of a quantity in thousandths, rounded up as Kubernetes does; `None` when it is malformed or absurdly large.
#[must_use]
pub fn milli(text: &str) -> Option<i128> {
    let digits_end = text
        .char_indices()
        .find(|(place, letter)| !(letter.is_ascii_digit() || *letter == '.' || (*place == 0 && "+-".contains(*letter))))
        .map_or(text.len(), |(place, _)| place);
    let (number, suffix) = text.split_at_checked(digits_end)?;
    let (numerator, denominator) = scale(suffix)?;
    let (mantissa, decimals) = decimal(number)?;
    let value = mantissa.checked_mul(1_000)?.checked_mul(numerator)?;
    let divisor = denominator.checked_mul(10_i128.checked_pow(decimals)?)?;
    let rounds_up = value.rem_euclid(divisor) > 0;
    Some(value.div_euclid(divisor) + i128::from(rounds_up))
}

/// Whether two quantities are the same amount.
#[must_use]
pub fn equal(one: &str, other: &str) -> bool {
    one == other || milli(one).is_some_and(|value| milli(other) == Some(value))
}

/// A decimal number as an integer and the count of its decimals.
fn decimal(number: &str) -> Option<(i128, u32)> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let joined = format!("{whole}{fraction}");
    if !joined.bytes().any(|byte| byte.is_ascii_digit()) || fraction.contains('.') {
        return None;
    }
    Some((joined.parse().ok()?, u32::try_from(fraction.len()).ok()?))
}

/// What a suffix multiplies by, as a fraction.
fn scale(suffix: &str) -> Option<(i128, i128)> {
    let binary = |power: u32| Some((1024_i128.pow(power), 1));
    let thousand = |power: u32| Some((1000_i128.pow(power), 1));
    match suffix {
        "" => Some((1, 1)),
        "n" => Some((1, 1_000_000_000)),
        "u" => Some((1, 1_000_000)),
        "m" => Some((1, 1_000)),
        "k" => thousand(1),
        "M" => thousand(2),
        "G" => thousand(3),
        "T" => thousand(4),
        "P" => thousand(5),
        "E" => thousand(6),
        "Ki" => binary(1),
        "Mi" => binary(2),
        "Gi" => binary(3),
        "Ti" => binary(4),
        "Pi" => binary(5),
        "Ei" => binary(6),
        _ => exponent(suffix),
    }
}

fn exponent(suffix: &str) -> Option<(i128, i128)> {
    let power: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
    let factor = 10_i128.checked_pow(power.unsigned_abs())?;
    Some(if power < 0 { (1, factor) } else { (factor, 1) })
}

#[cfg(test)]
mod tests {
    use super::{equal, milli};

    #[test]
    fn every_suffix_has_its_value() {
        for (text, expected) in [
            ("0", 0),
            ("1", 1_000),
            ("1.5", 1_500),
            (".5", 500),
            ("100m", 100),
            ("1u", 1),
            ("1500u", 2),
            ("2k", 2_000_000),
            ("1Ki", 1_024_000),
            ("20Gi", 20 * 1024 * 1024 * 1024 * 1000),
            ("1e3", 1_000_000),
            ("5E-1", 500),
            ("1E", 1_000_000_000_000_000_000_000),
            ("-1", -1_000),
        ] {
            assert_eq!(milli(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_quantity_has_no_value() {
        for text in ["", ".", "Gi", "1.2.3", "1 Gi", "1gi", "1e", "--1", "1e999", "é"] {
            assert_eq!(milli(text), None, "{text}");
        }
    }

    #[test]
    fn two_ways_of_writing_an_amount_are_equal() {
        assert!(equal("1000m", "1"));
        assert!(equal("1024Mi", "1Gi"));
        assert!(!equal("1G", "1Gi"));
        assert!(!equal("x", "y"));
        assert!(equal("x", "x"));
    }
}
