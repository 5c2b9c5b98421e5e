//! Records on standard output, for whatever collects it. The log is on standard error.

use std::io::{self, Write};

use super::{Held, blocking::BlockingSink, page::Page};

pub(super) struct StdoutSink;

impl BlockingSink for StdoutSink {
    fn held(&mut self) -> Result<Held, String> {
        Ok(Held::Unknown)
    }

    fn deliver(&mut self, page: &Page) -> Result<(), String> {
        let mut text = String::new();
        for (_, line) in &page.lines {
            text.push_str(line);
            text.push('\n');
        }
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())
            .and_then(|()| out.flush())
            .map_err(|error| format!("standard output takes nothing ({error})"))
    }

    fn sync(&mut self) -> Result<(), String> {
        Ok(())
    }
}
