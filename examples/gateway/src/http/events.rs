//! Server-sent events, read as they come.

/// A stream of server-sent events in pieces of any size. It keeps no more than the current event.
pub(super) struct Events {
    bound: usize,
    line: Vec<u8>,
    event: Event,
    /// The line before ended with a carriage return: a line feed that follows belongs to it.
    after_return: bool,
    /// Nothing except a byte order mark may have come.
    is_first: bool,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Event {
    /// Comments and every field except the data, a line each.
    lines: Vec<u8>,
    /// Set if the stream can be resumed after it.
    pub(super) has_id: bool,
    pub(super) data: Option<Vec<u8>>,
}

/// An event is longer than the bound.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooLong;

impl Event {
    /// An event with data alone.
    pub(super) fn message() -> Self {
        Self { lines: b"event: message\n".to_vec(), ..Self::default() }
    }

    /// Writes the event with other data. Without data, the rest of it, if there is any.
    pub(super) fn write(&self, to: &mut Vec<u8>, data: Option<&[u8]>) {
        if self.lines.is_empty() && data.is_none() {
            return;
        }
        to.extend_from_slice(&self.lines);
        // JSON has line ends between its tokens alone, where one is as good as another.
        for line in data.into_iter().flat_map(|data| data.split(|byte| matches!(byte, b'\n' | b'\r'))) {
            to.extend_from_slice(b"data: ");
            to.extend_from_slice(line);
            to.push(b'\n');
        }
        to.push(b'\n');
    }
}

impl Events {
    /// Reads events of at most `bound` bytes.
    pub(super) fn new(bound: usize) -> Self {
        Self { bound, line: Vec::new(), event: Event::default(), after_return: false, is_first: true }
    }

    /// Takes the next bytes, and appends the events that are complete.
    pub(super) fn take(&mut self, mut bytes: &[u8], events: &mut Vec<Event>) -> Result<(), TooLong> {
        while !bytes.is_empty() {
            if std::mem::take(&mut self.after_return)
                && let Some(rest) = bytes.strip_prefix(b"\n")
            {
                bytes = rest;
                continue;
            }
            let end = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
            let (part, rest) = bytes.split_at(end.unwrap_or(bytes.len()));
            let held = self.line.len() + self.event.lines.len() + self.event.data.as_ref().map_or(0, Vec::len);
            if held + part.len() > self.bound {
                return Err(TooLong);
            }
            self.line.extend_from_slice(part);
            let Some((end, rest)) = rest.split_first() else { return Ok(()) };
            self.after_return = *end == b'\r';
            bytes = rest;
            let mut line = std::mem::take(&mut self.line);
            self.read(&line, events);
            line.clear();
            self.line = line;
        }
        Ok(())
    }

    fn read(&mut self, line: &[u8], events: &mut Vec<Event>) {
        let is_first = std::mem::take(&mut self.is_first);
        let line = line.strip_prefix(b"\xef\xbb\xbf").filter(|_| is_first).unwrap_or(line);
        if line.is_empty() {
            let event = std::mem::take(&mut self.event);
            events.extend((event != Event::default()).then_some(event));
            return;
        }
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let (name, value) = line.split_at(colon);
        let value = value.strip_prefix(b":").unwrap_or(value);
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match name {
            b"data" => match &mut self.event.data {
                None => self.event.data = Some(value.to_vec()),
                Some(data) => {
                    data.push(b'\n');
                    data.extend_from_slice(value);
                }
            },
            b"id" if value.contains(&0) => {}
            b"retry" if !value.iter().all(u8::is_ascii_digit) => {}
            b"" | b"id" | b"event" | b"retry" => {
                if name == b"id" {
                    self.event.has_id = !value.is_empty();
                }
                self.event.lines.extend_from_slice(line);
                self.event.lines.push(b'\n');
            }
            // No reader knows other fields.
            _ => {}
        }
    }
}
