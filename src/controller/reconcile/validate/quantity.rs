//! Quantities as Kubernetes reads and writes them, so that two can be compared, and so that what is
//! applied is written as the API server would write it.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// A billionth is the smallest unit.
const NANO: i128 = 1_000_000_000;

const DECIMAL: [(&str, i32); 10] =
    [("n", -9), ("u", -6), ("m", -3), ("", 0), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];
const BINARY: [(&str, u32); 6] = [("Ki", 10), ("Mi", 20), ("Gi", 30), ("Ti", 40), ("Pi", 50), ("Ei", 60)];

/// An amount that is not negative, and the family of suffixes that it was written with.
#[derive(Clone, Copy, Debug)]
pub struct Amount {
    nanos: i128,
    form: Form,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Decimal,
    Binary,
    Exponent,
}

impl Amount {
    /// Reads a quantity; none when it is not one, is negative, or is too large or too fine.
    pub fn parse(quantity: &Quantity) -> Option<Self> {
        let text = quantity.0.trim();
        let text = text.strip_prefix('+').unwrap_or(text);
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, suffix) = text.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let digits = format!("{whole}{fraction}");
        if digits.is_empty() || digits.len() > 27 || fraction.contains('.') {
            return None;
        }
        let digits: i128 = digits.parse().ok()?;
        let decimals = u32::try_from(fraction.len()).ok()?;
        // The value in billionths: digits * factor / 10^decimals, where that is whole.
        let (factor, form) = if let Some((_, exponent)) = DECIMAL.iter().find(|(name, _)| *name == suffix) {
            (10i128.checked_pow(u32::try_from(exponent + 9).ok()?)?, Form::Decimal)
        } else if let Some((_, bits)) = BINARY.iter().find(|(name, _)| *name == suffix) {
            ((1i128 << bits).checked_mul(NANO)?, Form::Binary)
        } else {
            let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            (10i128.checked_pow(u32::try_from(exponent.checked_add(9)?).ok()?)?, Form::Exponent)
        };
        let scaled = digits.checked_mul(factor)?;
        let divisor = 10i128.checked_pow(decimals)?;
        (scaled % divisor == 0).then_some(Self { nanos: scaled / divisor, form })
    }

    /// The value in billionths, to be compared.
    pub fn nanos(self) -> i128 {
        self.nanos
    }

    /// As the API server writes it: no fraction, and the largest suffix of its family that keeps it whole.
    pub fn canonical(self) -> Quantity {
        let whole_bytes = self.nanos % NANO == 0 && self.nanos >= 1024 * NANO;
        if self.form == Form::Binary && whole_bytes {
            let bytes = self.nanos / NANO;
            let found = BINARY.iter().rev().find(|(_, bits)| bytes % (1i128 << bits) == 0);
            return Quantity(
                found.map_or(bytes.to_string(), |(name, bits)| format!("{}{name}", bytes >> bits)),
            );
        }
        if self.nanos == 0 {
            return Quantity("0".into());
        }
        let (mut value, mut exponent) = (self.nanos, -9);
        while value % 1000 == 0 && exponent < 18 {
            value /= 1000;
            exponent += 3;
        }
        let suffix = match (self.form, DECIMAL.iter().find(|(_, of)| *of == exponent)) {
            (Form::Exponent, _) if exponent != 0 => format!("e{exponent}"),
            (_, Some((name, _))) => (*name).to_owned(),
            (_, None) => format!("e{exponent}"),
        };
        Quantity(format!("{value}{suffix}"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn canonical(text: &str) -> Option<String> {
        Amount::parse(&Quantity(text.into())).map(|amount| amount.canonical().0)
    }

    #[test]
    fn quantities_are_written_as_the_api_server_writes_them() {
        for (text, expected) in [
            ("0", "0"),
            ("1", "1"),
            ("0.5", "500m"),
            ("1000m", "1"),
            ("1500m", "1500m"),
            ("128Mi", "128Mi"),
            ("1024Mi", "1Gi"),
            ("1.5Gi", "1536Mi"),
            ("512Ki", "512Ki"),
            ("0.5Ki", "512"),
            ("1000000", "1M"),
            ("1e3", "1e3"),
            ("100e3", "100e3"),
            ("1E3", "1e3"),
            ("+5", "5"),
            (".5", "500m"),
            ("2.", "2"),
        ] {
            assert_eq!(canonical(text).as_deref(), Some(expected), "{text}");
        }
        for text in ["", "-1", "1x", "Mi", "1.2.3", ".", "1 Mi", "1e", "999999999999999999999999999999"] {
            assert_eq!(canonical(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn the_canonical_form_has_the_same_value_and_is_its_own(
            number in 0u32..2_000_000, suffix in prop::sample::select(vec!["m", "", "k", "M", "Ki", "Mi", "Gi", "e2"])
        ) {
            let amount = Amount::parse(&Quantity(format!("{number}{suffix}"))).unwrap();
            let again = Amount::parse(&amount.canonical()).unwrap();
            prop_assert_eq!(amount.nanos(), again.nanos());
            prop_assert_eq!(amount.canonical(), again.canonical());
        }
    }
}
