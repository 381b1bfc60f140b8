//! Just enough of the protobuf wire format to find one field in a message, without copying or recursion.

/// One field's value, as far as it is read here.
enum Value<'m> {
    Number(u64),
    Bytes(&'m [u8]),
}

/// The last length-delimited field `number` of a message; `Ok(None)` when it has none, `Err` when the bytes are no
/// protobuf message.
pub(crate) fn bytes_field(message: &[u8], number: u64) -> Result<Option<&[u8]>, &'static str> {
    last(message, number, |value| match value {
        Value::Bytes(bytes) => Some(bytes),
        Value::Number(_) => None,
    })
}

/// All length-delimited fields `number` of a message, in order; `Err` as for [`bytes_field`].
pub(crate) fn bytes_fields(message: &[u8], number: u64) -> Result<Vec<&[u8]>, &'static str> {
    let mut all = Vec::new();
    walk(message, number, |value| {
        if let Value::Bytes(bytes) = value {
            all.push(bytes);
        }
    })?;
    Ok(all)
}

/// The last number field `number` of a message; `Ok(None)` and `Err` as for [`bytes_field`].
pub(crate) fn number_field(message: &[u8], number: u64) -> Result<Option<u64>, &'static str> {
    last(message, number, |value| match value {
        Value::Number(number) => Some(number),
        Value::Bytes(_) => None,
    })
}

/// The last field `number` that `take` takes, the whole message walked.
fn last<'m, T>(
    message: &'m [u8],
    number: u64,
    take: impl Fn(Value<'m>) -> Option<T>,
) -> Result<Option<T>, &'static str> {
    let mut found = None;
    walk(message, number, |value| found = take(value).or(found.take()))?;
    Ok(found)
}

/// Shows every field `number`, the whole message walked.
fn walk<'m>(message: &'m [u8], number: u64, mut show: impl FnMut(Value<'m>)) -> Result<(), &'static str> {
    let mut rest = message;
    while !rest.is_empty() {
        let tag = varint(&mut rest)?;
        let value = match tag & 7 {
            0 => Value::Number(varint(&mut rest)?),
            1 => {
                skip(&mut rest, 8)?;
                continue;
            }
            5 => {
                skip(&mut rest, 4)?;
                continue;
            }
            2 => {
                let len = usize::try_from(varint(&mut rest)?).unwrap_or(usize::MAX);
                let (field, tail) = rest.split_at_checked(len).ok_or("a length beyond the end")?;
                rest = tail;
                Value::Bytes(field)
            }
            _ => return Err("a wire type that protobuf does not have"),
        };
        if tag >> 3 == number {
            show(value);
        }
    }
    Ok(())
}

fn varint(rest: &mut &[u8]) -> Result<u64, &'static str> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, tail) = rest.split_first().ok_or("a number cut short")?;
        *rest = tail;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err("a number of more than 10 bytes")
}

fn skip(rest: &mut &[u8], bytes: usize) -> Result<(), &'static str> {
    *rest = rest.get(bytes..).ok_or("a field cut short")?;
    Ok(())
}
