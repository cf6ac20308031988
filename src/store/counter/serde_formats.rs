//! The serialized forms of the numbers in a counter's state, exact in any format.

/// A sum, as a whole number of millionths.
pub(super) mod millionths {
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::amount::Total;

    pub(in crate::store) fn serialize<S: Serializer>(total: &Total, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(total.micros())
    }

    pub(in crate::store) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Total, D::Error> {
        u64::deserialize(deserializer).map(Total::from_micros)
    }
}

/// An instant, as microseconds since the Unix epoch.
pub(super) mod micros {
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::time::Timestamp;

    pub(in crate::store) fn serialize<S: Serializer>(instant: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_i64(instant.unix_micros())
    }

    pub(in crate::store) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        i64::deserialize(deserializer).map(Timestamp::from_unix_micros)
    }
}

/// A `u128`, which few formats support, as a text of decimal digits.
pub(super) mod digits {
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(in crate::store) fn serialize<S: Serializer>(number: &u128, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(number)
    }

    pub(in crate::store) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u128, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(|_| de::Error::custom("not a whole number"))
    }
}
