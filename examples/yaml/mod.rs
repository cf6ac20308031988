//! Reads a YAML document into a value, within bounds, and refuses what another reader could take for something else.

use serde_json::Value;
use serde_saphyr::options::{DuplicateKeyPolicy, MergeKeyPolicy};
use serde_saphyr::{budget, options};

/// The longest document that is read.
const DOCUMENT_BYTES: usize = 8 << 20;

/// The value of the one document that the bytes hold.
///
/// # Errors
/// A text that says what is wrong and where: no YAML, duplicate keys, an anchor (what it unfolds to has no bound), a number that
/// is none, a second document.
pub(crate) fn read(bytes: &[u8]) -> Result<Value, String> {
    if bytes.len() > DOCUMENT_BYTES {
        return Err(format!("a document of {} bytes exceeds the bound of {DOCUMENT_BYTES}", bytes.len()));
    }
    let text = std::str::from_utf8(bytes).map_err(|error| format!("not UTF-8 from byte {} on", error.valid_up_to()))?;
    let options = options! {
        budget: budget! {
            max_depth: 64,
            max_aliases: 0,
            max_anchors: 0,
            max_documents: 1,
            max_events: 2_000_000,
            max_nodes: 1_000_000,
        },
        duplicate_keys: DuplicateKeyPolicy::Error,
        merge_keys: MergeKeyPolicy::Error,
        // As the reader of Intercept has it: `yes` is a text, and `0777` is 511.
        strict_booleans: true,
        legacy_octal_numbers: true,
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| error.render())
}
