//! A row's bytes as they are hashed: the same for equal values in two databases.

use super::{CopyError, Row};
use crate::relation::{FIRST_USER_OID, Shape};

/// An array has at most so many dimensions (`MAXDIM`).
const DIMENSIONS: i32 = 6;

/// Whether rows of these columns can be hashed as they come ([`Row::body`]): nearly all can.
pub fn is_canonical(shapes: &[Shape]) -> bool {
    shapes.iter().all(|shape| *shape == Shape::Plain)
}

/// The row's fields with their lengths, OIDs of users' types replaced by 0; `shapes` has one for each field. `scratch` is
/// used where something must be replaced.
///
/// # Errors
/// [`CopyError::Malformed`] if a value is not what its type's send function writes.
pub fn canonical<'a>(row: Row<'a>, shapes: &[Shape], scratch: &'a mut Vec<u8>) -> Result<&'a [u8], CopyError> {
    if is_canonical(shapes) {
        return Ok(row.body());
    }
    scratch.clear();
    scratch.extend_from_slice(row.body());
    let mut rest = scratch.as_mut_slice();
    for shape in shapes {
        rest = sized(rest, |field| rewrite(field, shape))?;
    }
    Ok(scratch)
}

/// Replaces what is to be replaced in one value.
fn rewrite(value: &mut [u8], shape: &Shape) -> Result<(), CopyError> {
    match shape {
        Shape::Plain => Ok(()),
        Shape::Array(element) => {
            let (dimensions, rest) = word(value)?;
            let dimensions = i32::from_be_bytes(*dimensions);
            if !(0..=DIMENSIONS).contains(&dimensions) {
                return Err(CopyError::Malformed);
            }
            let (_has_null, rest) = word(rest)?;
            let (oid, rest) = word(rest)?;
            hide(oid);
            let bounds = 8 * dimensions.unsigned_abs() as usize;
            let mut rest = rest.get_mut(bounds..).ok_or(CopyError::Malformed)?;
            if **element == Shape::Plain {
                return Ok(());
            }
            while !rest.is_empty() {
                rest = sized(rest, |one| rewrite(one, element))?;
            }
            Ok(())
        }
        Shape::Record(fields) => {
            let (count, mut rest) = word(value)?;
            if usize::try_from(i32::from_be_bytes(*count)) != Ok(fields.len()) {
                return Err(CopyError::Malformed);
            }
            for field in fields {
                let (oid, after) = word(rest)?;
                hide(oid);
                rest = sized(after, |one| rewrite(one, field))?;
            }
            Ok(())
        }
        Shape::Range(bound) => {
            // The flags: empty, bounds inclusive, infinite, or (never now) NULL.
            let (flags, mut rest) = value.split_first_mut().ok_or(CopyError::Malformed)?;
            for absent in [0x01 | 0x08 | 0x20, 0x01 | 0x10 | 0x40] {
                if *flags & absent == 0 {
                    rest = sized(rest, |one| rewrite(one, bound))?;
                }
            }
            Ok(())
        }
        Shape::Multirange(range) => {
            let (_count, mut rest) = word(value)?;
            while !rest.is_empty() {
                rest = sized(rest, |one| rewrite(one, range))?;
            }
            Ok(())
        }
    }
}

fn hide(oid: &mut [u8; 4]) {
    if u32::from_be_bytes(*oid) >= FIRST_USER_OID {
        *oid = [0; 4];
    }
}

fn word(bytes: &mut [u8]) -> Result<(&mut [u8; 4], &mut [u8]), CopyError> {
    bytes.split_first_chunk_mut().ok_or(CopyError::Malformed)
}

/// Takes a value with its length off the front, and returns what is behind it.
fn sized(bytes: &mut [u8], each: impl FnOnce(&mut [u8]) -> Result<(), CopyError>) -> Result<&mut [u8], CopyError> {
    let (length, rest) = word(bytes)?;
    let Ok(length) = usize::try_from(i32::from_be_bytes(*length)) else { return Ok(rest) };
    let (value, rest) = rest.split_at_mut_checked(length).ok_or(CopyError::Malformed)?;
    each(value)?;
    Ok(rest)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_are_a_value_or_an_error(mut bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let plain = || Box::new(Shape::Plain);
            for shape in [
                Shape::Array(plain()),
                Shape::Array(Box::new(Shape::Record(vec![Shape::Array(plain())]))),
                Shape::Record(vec![Shape::Plain, Shape::Array(plain())]),
                Shape::Multirange(Box::new(Shape::Range(Box::new(Shape::Array(plain()))))),
            ] {
                let length = bytes.len();
                let _ = rewrite(&mut bytes, &shape);
                prop_assert_eq!(bytes.len(), length);
            }
        }
    }
}
