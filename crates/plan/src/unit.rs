//! Text edits of the systemd unit and environment files an etcd is started from; every other byte stays as it is.
//!
//! Read as systemd reads them (systemd.syntax(7), systemd.exec(5)): a line that ends in a backslash goes on, comment
//! lines in between are skipped, an empty `ExecStart=` in a drop-in forgets the ones before, environment files win over
//! `Environment=`, and in etcd flags win over `ETCD_*` variables. What may hide a flag is refused with the reason.

use crate::manifest::{EditError, EtcdEdit, INITIAL_CLUSTER, flag_name};
use crate::words::plain_value;
use rekindle_model::HostPath;
use rekindle_model::host::TextFile;
use std::ops::Range;

/// A file being edited.
struct File<'a> {
    path: &'a HostPath,
    text: String,
}

/// A word of a command line or of an `Environment=` line, as it stands in the text.
#[derive(Clone, Debug)]
struct Word {
    range: Range<usize>,
    value: String,
    /// Whether it has escapes or quotes that are not understood.
    odd: bool,
}

/// Where a setting stands.
#[derive(Clone, Debug)]
struct Place {
    file: usize,
    range: Range<usize>,
    /// What stands before the value in that range: `--flag=`, `NAME=`, or nothing.
    lead: String,
    value: String,
    /// How another setting of the same kind is put behind it.
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Flag,
    Environment,
    EnvironmentFile,
}

/// Edits the files a unit's etcd is started from, in the order systemd reads them. Returns the changed ones.
///
/// # Errors
/// When the settings may come from somewhere that is not understood; the error says where and why.
pub fn edit_unit_files(
    files: &[(&HostPath, &TextFile)],
    edit: &EtcdEdit,
) -> Result<Vec<(HostPath, String)>, EditError> {
    let mut edited: Vec<File<'_>> =
        files.iter().map(|(path, file)| File { path, text: file.text.clone() }).collect();
    for (flag, value) in edit.flags() {
        set(&mut edited, flag, &value)?;
    }
    for (flag, value) in edit.flags() {
        if locate(&edited, flag)?.map(|p| p.value).as_deref() != Some(value.as_str()) {
            return Err(EditError::NotWritten(flag.to_owned()));
        }
    }
    let changed = edited.into_iter().zip(files).filter(|(new, (_, old))| new.text != old.text);
    Ok(changed.map(|(new, _)| (new.path.clone(), new.text)).collect())
}

/// The value etcd gets for a flag (its name without dashes) from these files; none when it is not given.
///
/// # Errors
/// When it may come from somewhere that is not understood.
pub fn unit_flag(files: &[(&HostPath, &TextFile)], flag: &str) -> Result<Option<String>, EditError> {
    let files: Vec<File<'_>> =
        files.iter().map(|(path, file)| File { path, text: file.text.clone() }).collect();
    Ok(locate(&files, flag)?.map(|p| p.value))
}

fn set(files: &mut [File<'_>], flag: &str, value: &str) -> Result<(), EditError> {
    if !plain_value(value) {
        return Err(EditError::Value(value.to_owned()));
    }
    if let Some(place) = locate(files, flag)? {
        if place.value != value
            && let Some(file) = files.get_mut(place.file)
        {
            file.text.replace_range(place.range, &format!("{}{value}", place.lead));
        }
        return Ok(());
    }
    let anchor = match locate(files, INITIAL_CLUSTER)? {
        Some(place) => place,
        None => last_word(files)?,
    };
    let Some(file) = files.get_mut(anchor.file) else { return Err(EditError::NoFlags) };
    let setting = match anchor.kind {
        Kind::Flag => format!("--{flag}={value}"),
        Kind::Environment | Kind::EnvironmentFile => format!("{}={value}", variable(flag)),
    };
    let gap = match anchor.kind {
        Kind::EnvironmentFile => "\n".to_owned(),
        Kind::Flag | Kind::Environment => gap_before(&file.text, anchor.range.start, &anchor.lead),
    };
    file.text.insert_str(anchor.range.end, &format!("{gap}{setting}"));
    Ok(())
}

/// What separates a word from the one before it (spaces, or a continued line and its indentation): used again behind it.
fn gap_before(text: &str, start: usize, lead: &str) -> String {
    let before = text.get(..start).unwrap_or_default();
    let body = before.trim_end_matches([' ', '\t', '\n', '\r', '\\']);
    let gap = before.get(body.len()..).unwrap_or_default();
    // The value of `--flag value` has its own gap; a new flag on the same line needs just a space.
    if lead.is_empty() || gap.is_empty() || body.ends_with('=') {
        return " ".into();
    }
    match gap.rsplit_once('\n') {
        // Said anew rather than copied: a comment line may stand between, and the gap is only what follows it.
        Some((above, indent)) => format!(" \\{}\n{indent}", if above.ends_with('\r') { "\r" } else { "" }),
        None => gap.to_owned(),
    }
}

/// The environment variable etcd reads for a flag (`pkg/flags`: `ETCD_` and the upper-cased name).
fn variable(flag: &str) -> String {
    format!("ETCD_{}", flag.to_ascii_uppercase().replace('-', "_"))
}

/// Where a flag's value stands: in the command, else in the environment; none when it is not given.
fn locate(files: &[File<'_>], flag: &str) -> Result<Option<Place>, EditError> {
    let (file, words) = command(files)?;
    let mut found = Vec::new();
    for (at, word) in words.iter().enumerate().skip(1) {
        if flag_name(&word.value) != Some(flag) {
            continue;
        }
        let next = words.get(at + 1).filter(|n| flag_name(&n.value).is_none());
        let (hold, lead, value) = match (word.value.split_once('='), next) {
            (Some((name, value)), _) => (word, format!("{name}="), value.to_owned()),
            (None, Some(next)) => (next, String::new(), next.value.clone()),
            (None, None) => {
                return Err(line_error(files, file, word.range.start, format!("--{flag} has no value")));
            }
        };
        if hold.odd {
            return Err(line_error(files, file, hold.range.start, "its quoting is not plain".into()));
        }
        found.push(Place { file, range: hold.range.clone(), lead, value, kind: Kind::Flag });
    }
    match found.len() {
        0 => {}
        1 => return Ok(found.pop()),
        many => return Err(EditError::Repeated(flag.to_owned(), many)),
    }
    hidden(files, &words, flag)?;
    in_environment(files, &variable(flag))
}

/// Refuses when a variable on the command line may bring the flag.
fn hidden(files: &[File<'_>], words: &[Word], flag: &str) -> Result<(), EditError> {
    for word in words.iter().skip(1).filter(|w| w.value.starts_with('$')) {
        let name: String =
            word.value.chars().skip(1).filter(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
        let given = in_environment(files, &name)?;
        let clear = given.is_some_and(|p| {
            p.value.split_whitespace().all(|part| flag_name(part) != Some(flag) && !part.starts_with('$'))
        });
        if !clear {
            return Err(EditError::Indirect {
                flag: flag.to_owned(),
                from: format!("the variable {}", word.value),
            });
        }
    }
    Ok(())
}

/// The last word of a command that runs etcd itself.
fn last_word(files: &[File<'_>]) -> Result<Place, EditError> {
    let (file, words) = command(files)?;
    let program =
        words.first().map(|w| w.value.trim_start_matches(['@', '-', ':', '+', '!'])).unwrap_or_default();
    let last =
        words.last().filter(|_| program.rsplit('/').next() == Some("etcd")).ok_or(EditError::NoFlags)?;
    let lead = if words.len() > 1 { last.value.clone() } else { String::new() };
    Ok(Place { file, range: last.range.clone(), lead, value: last.value.clone(), kind: Kind::Flag })
}

/// The one command the service runs, in words: the last `ExecStart=` after every reset.
fn command(files: &[File<'_>]) -> Result<(usize, Vec<Word>), EditError> {
    let mut commands: Vec<(usize, Vec<Word>)> = Vec::new();
    for (index, file) in files.iter().enumerate().filter(|(_, f)| is_unit(&f.text)) {
        for (key, value) in directives(&file.text) {
            if key != "ExecStart" {
                continue;
            }
            let words = words(&file.text, value);
            if words.is_empty() {
                commands.clear();
            } else {
                commands.push((index, words));
            }
        }
    }
    let many = commands.len();
    match (commands.pop(), many) {
        (Some((file, words)), 1) if words.iter().any(|w| w.value == ";") => {
            let start = words.first().map_or(0, |w| w.range.start);
            Err(line_error(files, file, start, "it runs more than one command".into()))
        }
        (Some(command), 1) => Ok(command),
        (None, _) => Err(EditError::NoFlags),
        (Some(_), many) => Err(EditError::ManyLists(many)),
    }
}

/// Where a variable is set last: environment files win over `Environment=`.
fn in_environment(files: &[File<'_>], name: &str) -> Result<Option<Place>, EditError> {
    let mut place = None;
    for (file, one) in files.iter().enumerate().filter(|(_, f)| is_unit(&f.text)) {
        for (key, value) in directives(&one.text).into_iter().filter(|(key, _)| *key == "Environment") {
            let _ = key;
            for word in words(&one.text, value) {
                let Some((given, value)) = word.value.split_once('=') else { continue };
                if given != name {
                    continue;
                }
                if word.odd {
                    return Err(line_error(files, file, word.range.start, "its quoting is not plain".into()));
                }
                let lead = format!("{name}=");
                let value = value.to_owned();
                place = Some(Place { file, range: word.range, lead, value, kind: Kind::Environment });
            }
        }
    }
    for (file, one) in files.iter().enumerate().filter(|(_, f)| !is_unit(&f.text)) {
        let mut offset = 0;
        for line in one.text.split_inclusive('\n') {
            if let Some((range, value)) = assignment(line, name) {
                if line.trim_end().ends_with('\\') {
                    return Err(line_error(files, file, offset, "it goes on on the next line".into()));
                }
                let range = offset + range.start..offset + range.end;
                place = Some(Place { file, range, lead: String::new(), value, kind: Kind::EnvironmentFile });
            }
            offset += line.len();
        }
    }
    Ok(place)
}

/// The value of `NAME=value` on a line of an environment file: its byte range with quotes, and the value without.
fn assignment(line: &str, name: &str) -> Option<(Range<usize>, String)> {
    let body = line.trim_start();
    let rest = body.strip_prefix(name)?.trim_start().strip_prefix('=')?;
    let start = line.len() - rest.trim_start().len();
    let raw = line.get(start..)?.trim_end();
    let quoted = raw.strip_prefix('"').and_then(|r| r.strip_suffix('"'));
    let quoted = quoted.or_else(|| raw.strip_prefix('\'').and_then(|r| r.strip_suffix('\'')));
    Some((start..start + raw.len(), quoted.unwrap_or(raw).to_owned()))
}

/// Whether a file has sections, as unit files do and environment files don't.
fn is_unit(text: &str) -> bool {
    text.lines().any(|l| l.trim_start().starts_with('[') && l.trim_end().ends_with(']'))
}

/// `Key=value` of a unit file, in order, each value with all its continued lines.
fn directives(text: &str) -> Vec<(&str, Range<usize>)> {
    let mut found: Vec<(&str, Range<usize>)> = Vec::new();
    let (mut offset, mut goes_on) = (0, false);
    for line in text.split_inclusive('\n') {
        let body = line.trim();
        let is_comment = body.starts_with(['#', ';']);
        let end = offset + line.trim_end_matches(['\n', '\r']).len();
        if goes_on {
            if let Some((_, range)) = found.last_mut() {
                range.end = end;
            }
            goes_on = is_comment || body.ends_with('\\');
        } else if !is_comment && let Some((key, _)) = line.split_once('=') {
            found.push((key.trim(), offset + key.len() + 1..end));
            goes_on = body.ends_with('\\');
        }
        offset += line.len();
    }
    found
}

/// The words of a value: separated by spaces and continued lines, quotes taken off.
fn words(text: &str, range: Range<usize>) -> Vec<Word> {
    let mut words = Vec::new();
    let mut word: Option<Word> = None;
    let mut quote: Option<char> = None;
    let mut chars = text.get(range.clone()).unwrap_or_default().char_indices().peekable();
    let mut comment = false;
    while let Some((at, c)) = chars.next() {
        let at = range.start + at;
        if comment {
            comment = c != '\n';
            continue;
        }
        let continued = c == '\\' && matches!(chars.peek(), None | Some((_, '\n' | '\r')));
        if quote.is_none() && (c.is_whitespace() || continued) {
            words.extend(word.take());
            continue;
        }
        // Inside a continued value a line that begins with # or ; is a comment.
        let line_start = text.get(..at).unwrap_or_default().trim_end_matches([' ', '\t']).ends_with('\n');
        if word.is_none() && line_start && matches!(c, '#' | ';') {
            comment = true;
            continue;
        }
        let current = word.get_or_insert(Word { range: at..at, value: String::new(), odd: false });
        current.range.end = at + c.len_utf8();
        match (quote, c) {
            (Some(q), c) if q == c => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            (_, '\\') => {
                current.odd = true;
                current.value.push(c);
            }
            _ => current.value.push(c),
        }
    }
    if let Some(mut last) = word {
        last.odd |= quote.is_some();
        words.push(last);
    }
    words
}

fn line_error(files: &[File<'_>], file: usize, offset: usize, why: String) -> EditError {
    let Some(file) = files.get(file) else { return EditError::NoFlags };
    let line = file.text.get(..offset).unwrap_or_default().matches('\n').count() + 1;
    EditError::Line { line, why: format!("{} in {}", why, file.path) }
}
