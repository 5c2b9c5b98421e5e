//! Records on standard output, for whatever collects it. The log is on standard error.

use std::io::{self, Write};

use super::{Held, blocking::BlockingSink, page::Page};

#[derive(Default)]
pub(super) struct StdoutSink {
    /// A line may have been cut off in the middle.
    torn: bool,
}

impl BlockingSink for StdoutSink {
    fn held(&mut self) -> Result<Held, String> {
        Ok(Held::Unknown)
    }

    fn deliver(&mut self, page: &Page) -> Result<(), String> {
        let mut text = String::new();
        if self.torn {
            text.push('\n');
        }
        for (_, line) in &page.lines {
            text.push_str(line);
            text.push('\n');
        }
        let mut out = io::stdout().lock();
        let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        self.torn = written.is_err();
        written.map_err(|error| format!("standard output takes nothing ({error})"))
    }

    fn sync(&mut self) -> Result<(), String> {
        Ok(())
    }
}
