//! The definitions of tools, pinned, and kept in a file where a restart is to remember them.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use serde_json::Value;
use toolgate::mcp::{OnChange, PinSnapshot, ToolPins};
use toolgate::{Denial, Policy, ToolCall};

use super::log::say;
use super::options::Options;
use super::text::plain;

/// How many tools of one server are pinned.
const TOOLS: usize = 10_000;

/// The pins, and what becomes of a tool that has changed.
pub(crate) struct Pins {
    pins: ToolPins,
    on_change: OnChange,
    file: Option<PathBuf>,
    /// What the file holds.
    kept: Mutex<Option<PinSnapshot>>,
}

impl Pins {
    /// The pins that the options ask for, if any; with those of the file, if there is one yet.
    pub(crate) fn open(options: &Options) -> Result<Option<Self>, String> {
        let Some(on_change) = options.on_changed_tool else { return Ok(None) };
        let file = options.pins.clone();
        let kept = file.as_deref().map_or(Ok(None), read)?;
        let pins = match &kept {
            None => ToolPins::new(TOOLS),
            Some(kept) => ToolPins::restore(kept.clone(), TOOLS).map_err(|error| error.to_string())?,
        };
        Ok(Some(Self { pins, on_change, file, kept: Mutex::new(kept) }))
    }

    /// Filters a `tools/list` result by the policy and by the pins, and says which tools have changed.
    pub(crate) fn filter_tools_list(&self, server: &str, policy: Option<&Policy>, result: &mut Value) {
        let changes = self.pins.filter_tools_list(server, policy, result, self.on_change);
        for change in changes {
            let became = if self.on_change == OnChange::Drop { "denied" } else { "still listed" };
            let (tool, seen) = (plain(change.tool()), change.seen());
            match change.pinned() {
                Some(pinned) => {
                    say(format_args!("tool `{tool}` is not as it was pinned ({pinned}, now {seen}): {became}"))
                }
                None => say(format_args!("no room to pin tool `{tool}`: {became}")),
            }
        }
        if let Err(error) = self.keep() {
            let file = self.file.as_deref().unwrap_or(Path::new(""));
            say(format_args!("{}: {error}: the pins are not kept over a restart", file.display()));
        }
    }

    /// Denies a call of a changed tool, where changed tools are to be denied.
    pub(crate) fn denial(&self, call: &ToolCall<'_>) -> Option<Denial> {
        match self.on_change {
            OnChange::Drop => self.pins.denial(call),
            OnChange::Keep => None,
        }
    }

    /// Writes the file anew, if anything has been pinned since: beside it first, so that it is never half written.
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
