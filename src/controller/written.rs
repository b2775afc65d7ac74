//! How values are written in a YAML text: `y`, which is read as true, or `0644`, which is read as a number. What is to be
//! put in quotes is what is written, not what is read.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_saphyr::{Location, Spanned};

/// The longest scalar of which the text is kept, in bytes: only of short ones, `true` or `1.20`, is it of use.
const MAX_SCALAR: u64 = 64;

/// A value as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Written {
    /// A map of fields.
    Map(BTreeMap<String, Written>),
    /// A list.
    List(Vec<Written>),
    /// A scalar: its text; empty if that is not known.
    Scalar(String),
}

impl Written {
    /// The documents of a text, as many as `serde_saphyr::from_multiple` gives; none if they cannot be read.
    pub fn documents(text: &str) -> Vec<Self> {
        let places: Vec<Spanned<Place>> = serde_saphyr::from_multiple(text).unwrap_or_default();
        places.into_iter().map(|place| Self::at(place, text)).collect()
    }

    fn at(place: Spanned<Place>, text: &str) -> Self {
        match place.value {
            Place::Map(fields) => {
                Self::Map(fields.into_iter().map(|(name, field)| (name, Self::at(field, text))).collect())
            }
            Place::List(items) => Self::List(items.into_iter().map(|item| Self::at(item, text)).collect()),
            Place::Scalar => Self::Scalar(scalar(text, place.defined).unwrap_or_default().to_owned()),
        }
    }

    /// A field of a map.
    pub fn field(&self, name: &str) -> Option<&Self> {
        if let Self::Map(fields) = self { fields.get(name) } else { None }
    }

    /// An item of a list.
    pub fn item(&self, at: usize) -> Option<&Self> {
        if let Self::List(items) = self { items.get(at) } else { None }
    }

    /// The text of a scalar, if it is known.
    pub fn text(&self) -> Option<&str> {
        if let Self::Scalar(text) = self { Some(text.as_str()).filter(|text| !text.is_empty()) } else { None }
    }
}

fn scalar(text: &str, at: Location) -> Option<&str> {
    let span = at.span();
    let length = span.byte_len().filter(|length| (1..=MAX_SCALAR).contains(length))?;
    let start = usize::try_from(span.byte_offset()?).ok()?;
    let written = text.get(start..start.checked_add(usize::try_from(length).ok()?)?)?.trim();
    Some(written).filter(|written| !written.contains(char::is_whitespace))
}

/// What is at a place of the text.
enum Place {
    Map(Vec<(String, Spanned<Place>)>),
    List(Vec<Spanned<Place>>),
    Scalar,
}

impl<'de> Deserialize<'de> for Place {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PlaceVisitor)
    }
}

struct PlaceVisitor;

impl<'de> Visitor<'de> for PlaceVisitor {
    type Value = Place;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("any value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Place, A::Error> {
        let mut fields = Vec::new();
        while let Some(field) = map.next_entry()? {
            fields.push(field);
        }
        Ok(Place::Map(fields))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Place, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(Place::List(items))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Place, D::Error> {
        Place::deserialize(deserializer)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Place, D::Error> {
        IgnoredAny::deserialize(deserializer).map(|_| Place::Scalar)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Place, E> {
        Ok(Place::Scalar)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Place, E> {
        Ok(Place::Scalar)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Place, E> {
        Ok(Place::Scalar)
    }

    fn visit_i128<E>(self, _: i128) -> Result<Place, E> {
        Ok(Place::Scalar)
    }

    fn visit_u128<E>(self, _: u128) -> Result<Place, E> {
        Ok(Place::Scalar)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Place, E> {
        Ok(Place::Scalar)
    }

    fn visit_str<E>(self, _: &str) -> Result<Place, E> {
        Ok(Place::Scalar)
    }

    fn visit_unit<E>(self) -> Result<Place, E> {
        Ok(Place::Scalar)
    }

    fn visit_none<E>(self) -> Result<Place, E> {
        Ok(Place::Scalar)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalars_are_known_as_they_are_written_in_every_document() {
        let text = "é: &x y\nb: [on, 0644, {c: 12e4}]\nd: *x\n---\nimage: 1.20 # a comment\nkind: \"a b\"\n";
        let documents = Written::documents(text);
        let [first, second] = documents.as_slice() else { panic!("{documents:?}") };
        let list = first.field("b").unwrap();
        let found = [
            first.field("é"),
            list.item(0),
            list.item(1),
            list.item(2).and_then(|item| item.field("c")),
            first.field("d"),
            second.field("image"),
            second.field("kind"),
        ];
        let texts: Vec<_> = found.iter().map(|found| found.and_then(Written::text)).collect();
        assert_eq!(
            texts,
            [Some("y"), Some("on"), Some("0644"), Some("12e4"), Some("y"), Some("1.20"), None],
            "{documents:?}"
        );
        assert_eq!(Written::documents("a: ["), []);
    }
}
