//! Text edits of etcd's static pod manifest that leave every other byte as it is.
//!
//! A parser that writes YAML anew would lose comments, order and quoting, so the lines of the command list are edited
//! in place. What is not in the form kubeadm writes (a block list under `command:` or `args:`, one flag an item) is
//! refused with the reason rather than guessed. Next: [`crate::unit`] does the same for systemd.

use crate::words::plain_value;
use thiserror::Error;

/// What is to be changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcdEdit {
    /// `--initial-cluster`: name and peer URL, one entry per URL. The state becomes `existing`.
    pub initial_cluster: Vec<(String, String)>,
    /// Old and new data dir, when it moves.
    pub data_dir: Option<(String, String)>,
}

impl EtcdEdit {
    /// The value of `--initial-cluster`.
    pub fn initial_cluster_value(&self) -> String {
        let pairs: Vec<String> =
            self.initial_cluster.iter().map(|(name, url)| format!("{name}={url}")).collect();
        pairs.join(",")
    }

    /// Flags and the values they get.
    pub(crate) fn flags(&self) -> Vec<(&'static str, String)> {
        let mut flags = vec![
            (INITIAL_CLUSTER, self.initial_cluster_value()),
            (INITIAL_CLUSTER_STATE, "existing".to_owned()),
        ];
        if let Some((_, new)) = &self.data_dir {
            flags.push((DATA_DIR, new.clone()));
        }
        flags
    }
}

/// etcd's flag names, without dashes.
pub(crate) const INITIAL_CLUSTER: &str = "initial-cluster";
pub(crate) const INITIAL_CLUSTER_STATE: &str = "initial-cluster-state";
pub(crate) const DATA_DIR: &str = "data-dir";

/// Why a text can't be edited.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum EditError {
    /// No list of flags in a form that is understood.
    #[error("no command list with etcd's flags was found, one flag a line under `command:` or `args:`")]
    NoFlags,
    /// More than one list of etcd's flags.
    #[error("{0} lists of etcd's flags were found where one was expected")]
    ManyLists(usize),
    /// A flag is given more than once.
    #[error("--{0} is given {1} times")]
    Repeated(String, usize),
    /// A line in a form that is not understood.
    #[error("line {line} is not understood: {why}")]
    Line {
        /// Line number, from 1.
        line: usize,
        /// What is not understood.
        why: String,
    },
    /// A value that can't be written without quoting rules.
    #[error("{0:?} can't be written as a plain value")]
    Value(String),
    /// The data dir is not told in the one form that is understood.
    #[error("the data dir {path} should stand once as {place}, but stands {found} times")]
    DataDir {
        /// The data dir looked for.
        path: String,
        /// Where it was looked for.
        place: &'static str,
        /// How often it was found.
        found: usize,
    },
    /// The flags come from somewhere the edit can't follow.
    #[error("--{flag} may come from {from}, which can't be edited")]
    Indirect {
        /// Flag without dashes.
        flag: String,
        /// Where it may come from.
        from: String,
    },
    /// The text does not hold what was to be written: a fault of the edit, found before anything is written.
    #[error("after the edit --{0} does not have the value it was given")]
    NotWritten(String),
}

/// One item of a block list.
#[derive(Clone, Debug)]
struct Item {
    line: usize,
    /// Byte range of the scalar with its quotes, within the line.
    start: usize,
    end: usize,
    /// Quote character, if any.
    quote: Option<char>,
    value: String,
}

/// The manifest's text with the edit done.
///
/// # Errors
/// When the text is not in the form kubeadm writes; the error says where and why.
pub fn edit_manifest(text: &str, edit: &EtcdEdit) -> Result<String, EditError> {
    let mut lines: Vec<String> = text.split_inclusive('\n').map(str::to_owned).collect();
    if let Some((old, new)) = &edit.data_dir {
        set_mapping(&mut lines, "path", old, new, "hostPath")?;
        set_mapping(&mut lines, "mountPath", old, new, "mountPath")?;
    }
    for (flag, value) in edit.flags() {
        if flag == DATA_DIR {
            check_old_data_dir(&lines, edit)?;
        }
        set_flag(&mut lines, flag, &value)?;
    }
    let edited = lines.concat();
    for (flag, value) in edit.flags() {
        if manifest_flag(&edited, flag)?.as_deref() != Some(value.as_str()) {
            return Err(EditError::NotWritten(flag.to_owned()));
        }
    }
    Ok(edited)
}

/// The value of a flag (its name without dashes) in a manifest's text.
///
/// # Errors
/// When the text is not in the form kubeadm writes.
pub fn manifest_flag(text: &str, flag: &str) -> Result<Option<String>, EditError> {
    let lines: Vec<String> = text.split_inclusive('\n').map(str::to_owned).collect();
    let items = etcd_items(&lines)?;
    Ok(match position(&items, flag)? {
        Some(at) => value_item(&items, at).map(|(_, value)| value),
        None => None,
    })
}

fn check_old_data_dir(lines: &[String], edit: &EtcdEdit) -> Result<(), EditError> {
    let Some((old, _)) = &edit.data_dir else { return Ok(()) };
    let items = etcd_items(lines)?;
    let at = position(&items, DATA_DIR)?;
    let found = at.and_then(|at| value_item(&items, at)).filter(|(_, value)| value == old);
    match found {
        Some(_) => Ok(()),
        None => Err(EditError::DataDir { path: old.clone(), place: "--data-dir", found: 0 }),
    }
}

/// Sets a flag in the command list: its value is replaced, or the flag is added.
fn set_flag(lines: &mut Vec<String>, flag: &str, value: &str) -> Result<(), EditError> {
    if !plain_value(value) {
        return Err(EditError::Value(value.to_owned()));
    }
    let items = etcd_items(lines)?;
    if let Some(at) = position(&items, flag)? {
        let Some((item, _)) = value_item(&items, at) else {
            let line = items.get(at).map_or(0, |i| i.line + 1);
            return Err(EditError::Line { line, why: format!("--{flag} has no value") });
        };
        let new = if item.line == items.get(at).map_or(usize::MAX, |i| i.line) {
            let dashes = if item.value.starts_with("--") { "--" } else { "-" };
            format!("{dashes}{flag}={value}")
        } else {
            value.to_owned()
        };
        let quote = item.quote.map(String::from).unwrap_or_default();
        let (line, start, end) = (item.line, item.start, item.end);
        if let Some(text) = lines.get_mut(line) {
            text.replace_range(start..end, &format!("{quote}{new}{quote}"));
        }
        return Ok(());
    }
    let after = match position(&items, INITIAL_CLUSTER)? {
        Some(at) => value_item(&items, at).map(|(item, _)| item),
        None => items.last(),
    };
    let Some(after) = after else { return Err(EditError::NoFlags) };
    insert_after(lines, after, &format!("--{flag}={value}"));
    Ok(())
}

/// Adds an item behind another one, indented and ended like it.
fn insert_after(lines: &mut Vec<String>, after: &Item, value: &str) {
    let Some(model) = lines.get_mut(after.line) else { return };
    let lead: String = model.chars().take_while(|c| *c == ' ').collect();
    let ending = if model.ends_with("\r\n") { "\r\n" } else { "\n" };
    if !model.ends_with('\n') {
        model.push_str(ending);
        lines.insert(after.line + 1, format!("{lead}- {value}"));
    } else {
        lines.insert(after.line + 1, format!("{lead}- {value}{ending}"));
    }
}

/// Index of the item that gives a flag, as `--flag=value` or `--flag` with the value in the next item.
fn position(items: &[Item], flag: &str) -> Result<Option<usize>, EditError> {
    let found: Vec<usize> = items
        .iter()
        .enumerate()
        .filter(|(_, item)| flag_name(&item.value) == Some(flag))
        .map(|(at, _)| at)
        .collect();
    match found.as_slice() {
        [] => Ok(None),
        [at] => Ok(Some(*at)),
        many => Err(EditError::Repeated(flag.to_owned(), many.len())),
    }
}

/// The item that holds a flag's value, and the value.
fn value_item(items: &[Item], at: usize) -> Option<(&Item, String)> {
    let item = items.get(at)?;
    match item.value.split_once('=') {
        Some((_, value)) => Some((item, value.to_owned())),
        None => items
            .get(at + 1)
            .filter(|next| flag_name(&next.value).is_none())
            .map(|next| (next, next.value.clone())),
    }
}

/// The name of a flag in an argument (`--name`, `-name`, with or without `=value`), as Go's flag package reads it.
pub(crate) fn flag_name(argument: &str) -> Option<&str> {
    let rest = argument.strip_prefix("--").or_else(|| argument.strip_prefix('-'))?;
    let name = rest.split('=').next().unwrap_or(rest);
    (!name.is_empty() && !name.starts_with('-')).then_some(name)
}

/// The items of the one list that holds etcd's flags.
fn etcd_items(lines: &[String]) -> Result<Vec<Item>, EditError> {
    let mut lists: Vec<Vec<Item>> = Vec::new();
    let mut at = 0;
    while let Some(line) = lines.get(at) {
        at += 1;
        let Some(indent) = list_key(line) else { continue };
        let (items, next) = read_list(lines, at, indent);
        at = next.max(at);
        let items = items?;
        let is_etcd =
            |i: &Item| matches!(flag_name(&i.value), Some("data-dir" | "initial-advertise-peer-urls"));
        if items.iter().any(is_etcd) {
            lists.push(items);
        }
    }
    match lists.len() {
        1 => lists.pop().ok_or(EditError::NoFlags),
        0 => Err(EditError::NoFlags),
        many => Err(EditError::ManyLists(many)),
    }
}

/// Indentation of a line that begins a command list (`command:` or `args:`, nothing behind it).
fn list_key(line: &str) -> Option<usize> {
    let mut rest = line.trim_end();
    let mut indent = rest.len() - rest.trim_start_matches(' ').len();
    rest = rest.trim_start_matches(' ');
    while let Some(inner) = rest.strip_prefix("- ") {
        let trimmed = inner.trim_start_matches(' ');
        indent += rest.len() - trimmed.len();
        rest = trimmed;
    }
    let key = rest.split(" #").next().unwrap_or(rest).trim_end();
    matches!(key, "command:" | "args:").then_some(indent)
}

/// Reads a block list whose items stand at `indent` or deeper, and where it ends.
fn read_list(lines: &[String], from: usize, indent: usize) -> (Result<Vec<Item>, EditError>, usize) {
    let mut items = Vec::new();
    let mut depth = None;
    let mut at = from;
    while let Some(line) = lines.get(at) {
        let text = line.trim_end();
        let lead = text.len() - text.trim_start_matches(' ').len();
        let body = text.trim_start_matches(' ');
        if body.is_empty() || body.starts_with('#') {
            at += 1;
            continue;
        }
        let is_item = body.starts_with("- ") && lead >= indent && depth.is_none_or(|d| d == lead);
        if !is_item {
            if depth.is_some_and(|d| lead > d) {
                let why = "it goes on with the item before it".to_owned();
                return (Err(EditError::Line { line: at + 1, why }), at);
            }
            break;
        }
        depth = Some(lead);
        match item(text, at, lead + 2) {
            Ok(item) => items.push(item),
            Err(why) => return (Err(EditError::Line { line: at + 1, why }), at),
        }
        at += 1;
    }
    (Ok(items), at)
}

/// Reads the scalar of one list item; `text` has no line end, `from` is where the scalar may begin.
fn item(text: &str, line: usize, from: usize) -> Result<Item, String> {
    let rest = text.get(from..).unwrap_or_default();
    let start = from + (rest.len() - rest.trim_start_matches(' ').len());
    let scalar = text.get(start..).unwrap_or_default();
    let quote = scalar.chars().next().filter(|c| matches!(c, '"' | '\''));
    let Some(quote) = quote else {
        if scalar.starts_with(['|', '>', '&', '*', '!', '{', '[', '%', '@', '`']) {
            return Err("it is not a plain or quoted word".into());
        }
        let value = scalar.split(" #").next().unwrap_or(scalar).trim_end();
        let end = start + value.len();
        return Ok(Item { line, start, end, quote: None, value: value.to_owned() });
    };
    let inner = scalar.get(1..).unwrap_or_default();
    let length = inner.find(quote).ok_or("its quote is not closed")?;
    let value = inner.get(..length).unwrap_or_default();
    let end = start + length + 2;
    let behind = text.get(end..).unwrap_or_default().trim_start();
    if value.contains('\\') || !(behind.is_empty() || behind.starts_with('#')) {
        return Err("its quoting is more than a plain pair of quotes".into());
    }
    Ok(Item { line, start, end, quote: Some(quote), value: value.to_owned() })
}

/// Replaces the value of `key: old`, which must stand exactly once.
fn set_mapping(
    lines: &mut [String],
    key: &str,
    old: &str,
    new: &str,
    place: &'static str,
) -> Result<(), EditError> {
    if !plain_value(new) {
        return Err(EditError::Value(new.to_owned()));
    }
    let mut hits = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let text = line.trim_end();
        let body = text.trim_start_matches([' ', '-']);
        let Some(rest) = body.strip_prefix(key).and_then(|r| r.strip_prefix(": ")) else { continue };
        let from = text.len() - rest.len();
        if let Ok(scalar) = item(text, at, from)
            && scalar.value.trim_end_matches('/') == old.trim_end_matches('/')
        {
            hits.push(scalar);
        }
    }
    let [hit] = hits.as_slice() else {
        return Err(EditError::DataDir { path: old.to_owned(), place, found: hits.len() });
    };
    let quote = hit.quote.map(String::from).unwrap_or_default();
    if let Some(line) = lines.get_mut(hit.line) {
        line.replace_range(hit.start..hit.end, &format!("{quote}{new}{quote}"));
    }
    Ok(())
}
