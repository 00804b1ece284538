//! Any stream, cut anywhere, is rows or an error; the same rows however it is cut.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgrunbook_postgres::copy::{CopyError, HEADER, RowSplitter, canonical, numeric};
use pgrunbook_postgres::relation::Shape;

fn read(columns: u16, shapes: &[Shape], stream: &[u8], size: usize) -> Result<Vec<Vec<u8>>, CopyError> {
    let mut splitter = RowSplitter::new(columns);
    let (mut rows, mut scratch) = (Vec::new(), Vec::new());
    for chunk in stream.chunks(size) {
        splitter.push(chunk, |row| {
            assert_eq!(row.fields().count(), usize::from(columns));
            let _ = canonical(row, shapes, &mut scratch);
            rows.push(row.bytes().to_vec());
            Ok::<_, CopyError>(())
        })?;
    }
    splitter.finish().map(|()| rows)
}

fuzz_target!(|data: &[u8]| {
    let [columns, size, body @ ..] = data else { return };
    let columns = u16::from(columns % 4);
    let array = || Shape::Array(Box::new(Shape::Plain));
    let shapes = [Shape::Record(vec![array(), Shape::Plain]), Shape::Multirange(Box::new(Shape::Range(Box::new(array()))))];
    let shapes: Vec<Shape> = shapes.iter().cycle().take(usize::from(columns)).cloned().collect();
    let whole = [HEADER.as_slice(), body].concat();
    let at_once = read(columns, &shapes, &whole, whole.len());
    assert_eq!(at_once, read(columns, &shapes, &whole, usize::from(*size).max(1)));
    let _ = read(columns, &shapes, body, 7);
    if let Ok(text) = std::str::from_utf8(body) {
        let _ = numeric(text, &mut Vec::new());
    }
});
