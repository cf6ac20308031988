//! The definitions of tools, pinned, and kept in a file if they must survive a restart.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use serde_json::Value;
use toolgate::mcp::{OnChange, PinSnapshot, ToolPins};
use toolgate::{Denial, Policy, ToolCall};

/// The number of tools of one server that are pinned.
const TOOLS: usize = 10_000;

/// The pins, and what happens to a tool that has changed.
pub struct Pins {
    pins: ToolPins,
    on_change: OnChange,
    file: Option<PathBuf>,
    /// The content of the file.
    kept: Mutex<Option<PinSnapshot>>,
}

impl Pins {
    /// Makes pins, with those of the file if it exists.
    ///
    /// # Errors
    /// The file cannot be read, or does not contain pins.
    pub fn open(on_change: OnChange, file: Option<PathBuf>) -> Result<Self, String> {
        let kept = file.as_deref().map_or(Ok(None), read)?;
        let pins = match &kept {
            None => ToolPins::new(TOOLS),
            Some(kept) => ToolPins::restore(kept.clone(), TOOLS).map_err(|error| error.to_string())?,
        };
        Ok(Self { pins, on_change, file, kept: Mutex::new(kept) })
    }

    /// Filters a result of `tools/list` by the policy and by the pins, and logs which tools have
    /// changed.
    pub fn filter_tools_list(&self, server: &str, policy: Option<&Policy>, result: &mut Value) {
        let effect = if self.on_change == OnChange::Drop { "denied" } else { "still listed" };
        for change in self.pins.filter_tools_list(server, policy, result, self.on_change) {
            let (tool, seen) = (change.tool().escape_debug(), change.seen());
            match change.pinned() {
                Some(pinned) => {
                    tracing::warn!("tool `{tool}` is not as it was pinned ({pinned}, now {seen}): {effect}")
                }
                None => tracing::warn!("no room to pin tool `{tool}`: {effect}"),
            }
        }
        if let Err(error) = self.keep() {
            let file = self.file.as_deref().unwrap_or(Path::new(""));
            tracing::warn!("{}: {error}: the pins do not survive a restart", file.display());
        }
    }

    /// Denies a call of a changed tool, if changed tools are denied.
    pub fn denial(&self, call: &ToolCall<'_>) -> Option<Denial> {
        match self.on_change {
            OnChange::Drop => self.pins.denial(call),
            OnChange::Keep => None,
        }
    }

    /// Writes the file anew if anything has been pinned since: beside it first, so that it is never
    /// half written.
    fn keep(&self) -> io::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        let mut kept = self.kept.lock();
        let now = self.pins.snapshot();
        if kept.as_ref() == Some(&now) {
            return Ok(());
        }
        let mut beside = file.clone().into_os_string();
        beside.push(".new");
        let mut new = fs::File::create(&beside)?;
        serde_json::to_writer(&mut new, &now)?;
        new.write_all(b"\n")?;
        new.sync_all()?;
        fs::rename(&beside, file)?;
        *kept = Some(now);
        Ok(())
    }
}

fn read(file: &Path) -> Result<Option<PinSnapshot>, String> {
    let said = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
    match fs::read(file) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| said(&error)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(said(&error)),
    }
}
