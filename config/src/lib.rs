//! Strict YAML documents, read in two stages: text into a tree of positioned
//! nodes, then the tree into typed values, collecting *every* mistake with its
//! file, line and column.
//!
//! What it promises, and why:
//!
//! - **One run reports everything.** A reader of [`Fields`] that finds a mistake
//!   records it and returns `None`; reading goes on. Only text that is not YAML
//!   ends the reading, as nothing after it can be trusted.
//! - **Nothing is ignored.** A key that nobody asked for is a mistake, with the
//!   nearest known key as a suggestion. So is a key twice, and a key without a
//!   value: `allow:` with every line below it commented out is a slip.
//! - **Nothing is coerced.** A scalar is the text as written: `1.10`, `0644`,
//!   `on` and `5` keep their spelling and are judged by the reader that asked.
//!   Only a plain `true` or `false` is a boolean.
//! - **Size is bounded.** Nesting, and the nodes that aliases expand to, have
//!   limits, so that an alias bomb is refused and not unfolded. Merge keys and
//!   tags other than `!!str` are refused: they make text mean what it does not say.
//!
//! It sits on `granit-parser`'s events (the parser below `serde-saphyr`) and not
//! on serde, because serde's data model has neither positions nor the spelling
//! of a scalar.

mod duration;
mod fields;
mod free;
mod locate;
mod mistakes;
mod node;
mod path;
mod suggestion;
mod write;

pub use duration::{format_duration, parse_duration};
pub use fields::{Document, Fields};
pub use free::Free;
pub use mistakes::{Mistake, Mistakes, one_line};
pub use path::Path;
pub use suggestion::did_you_mean;
pub use write::write;
