//! The documents of the repository, compared with its code.

mod guides;
mod imports;

use std::path::Path;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
