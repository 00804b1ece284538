//! A [`Matrix`] as a part of the page: a table whose cells open. It needs no script, and nothing from outside.

use std::fmt::Write as _;

use super::matrix::{Cell, Matrix, Tone};
use super::report::escaped;

/// Stands around a step's number where its picture goes. Texts that come from elsewhere never hold it: `report` takes it out.
pub(super) const MARK: char = '\u{e000}';

/// Cells that open, at most, beside those that are not as they should be: a page of more is slow, and nobody reads it.
/// 1,000 cells of 12 lines are about 4 MB.
const OPENING: usize = 1_000;

/// One line about it, where there is no picture.
pub(super) fn summary(matrix: &Matrix) -> String {
    let counts: Vec<String> = [Tone::Leaked, Tone::Broken, Tone::Unsure, Tone::Open, Tone::Closed]
        .into_iter()
        .filter_map(|tone| match matrix.count(tone) {
            0 => None,
            count => Some(format!("{count} {}", tone.word())),
        })
        .collect();
    let size = format!("{} rows by {} columns", matrix.rows.len(), matrix.columns.len());
    if counts.is_empty() { size } else { format!("{size}: {}", counts.join(", ")) }
}

/// Puts each picture in its place.
pub(super) fn place(body: &str, pictures: &[Option<String>]) -> String {
    let mut placed = String::with_capacity(body.len());
    // Between two marks stands a number, and nothing else has marks.
    for (number, part) in body.split(MARK).enumerate() {
        match number % 2 {
            0 => placed.push_str(part),
            _ => {
                let picture = part.parse::<usize>().ok().and_then(|number| pictures.get(number)?.as_deref());
                placed.push_str(picture.unwrap_or_default());
            }
        }
    }
    placed
}

/// The picture.
pub(super) fn html(matrix: &Matrix) -> String {
    let mut html = String::from("</p>\n<div class=\"wide\"><table class=\"matrix\">\n<thead><tr>");
    let _ = write!(html, "<th>{}</th>", escaped(&matrix.row_word));
    for column in &matrix.columns {
        let _ = write!(html, "<th scope=\"col\">{}</th>", escaped(column));
    }
    html.push_str("</tr></thead>\n<tbody>\n");
    let mut left = OPENING;
    for (row, cells) in matrix.rows.iter().zip(&matrix.cells) {
        let _ = write!(html, "<tr><th scope=\"row\">{}<small>{}</small></th>", escaped(&row.name), escaped(&row.note));
        for (column, cell) in matrix.columns.iter().zip(cells) {
            draw(&mut html, matrix, &row.name, column, cell, &mut left);
        }
        html.push_str("</tr>\n");
    }
    html.push_str("</tbody></table></div>\n<p class=\"legend\">");
    for (letter, word) in &matrix.marks {
        let _ = write!(html, "<code>{}</code> {} ", escaped(&letter.to_string()), escaped(word));
    }
    html.push_str("<br>a letter: works, as declared; <code>·</code> denied, as declared; ");
    html.push_str("<code>!</code> leaked; <code>✗</code> declared and does not work; <code>?</code> inconclusive");
    if left == 0 {
        html.push_str(
            "<br>Of the cells that are as declared only the first open; the others stand in <code>checks/</code>",
        );
    }
    // What follows in the text is its line of counts.
    html.push_str("<br>");
    html
}

fn draw(html: &mut String, matrix: &Matrix, row: &str, column: &str, cell: &Cell, left: &mut usize) {
    let tone = cell.tone.word();
    let text = escaped(&cell.text);
    let fits = !matches!(cell.tone, Tone::Leaked | Tone::Broken | Tone::Unsure);
    if cell.lines.is_empty() || (fits && *left == 0) {
        let _ = write!(html, "<td class=\"{tone}\"><code>{text}</code></td>");
        return;
    }
    if fits {
        *left -= 1;
    }
    let label = escaped(&format!("{row} on {column}: {tone}"));
    let _ =
        write!(html, "<td class=\"{tone}\"><details><summary aria-label=\"{label}\"><code>{text}</code></summary><dl>");
    for line in &cell.lines {
        let part = |number| escaped(matrix.text(number));
        let _ = write!(
            html,
            "<dt class=\"{}\">{} <b>{}</b></dt><dd><code>{}</code></dd><dd>{} <small>{} µs</small></dd>",
            line.0.word(),
            line.0.word(),
            part(line.1),
            part(line.2),
            part(line.3),
            line.5
        );
        if !matrix.text(line.4).is_empty() {
            let _ = write!(html, "<dd>{}</dd>", part(line.4));
        }
    }
    html.push_str("</dl></details></td>");
}

#[cfg(test)]
mod tests {
    use super::super::matrix::{Line, Row, VERSION};
    use super::*;

    fn matrix() -> Matrix {
        let line = Line(Tone::Leaked, 0, 1, 2, 3, 40);
        let cell = |text: &str, tone, lines| Cell { text: text.to_owned(), tone, lines };
        Matrix {
            version: VERSION,
            row_word: "role".to_owned(),
            rows: vec![Row { name: "<b>".to_owned(), note: "login".to_owned() }],
            columns: vec!["a&b".to_owned(), "c".to_owned()],
            marks: vec![('r', "SELECT".to_owned())],
            cells: vec![vec![cell("!", Tone::Leaked, vec![line]), cell("·", Tone::Closed, Vec::new())]],
            texts: ["s.t", "SELECT '</td><script>'", "it works", "through \"x\""].map(str::to_owned).to_vec(),
        }
    }

    #[test]
    fn what_a_database_answered_is_text_in_the_picture() {
        let html = html(&matrix());
        assert!(html.contains("<code>SELECT '&lt;/td&gt;&lt;script&gt;'</code>"), "{html}");
        assert!(html.contains("aria-label=\"&lt;b&gt; on a&amp;b: leaked\""), "{html}");
        assert!(!html.contains("<script"), "{html}");
        assert_eq!(html.matches("<details>").count(), 1);
    }

    #[test]
    fn pictures_go_where_their_step_is_named() {
        let pictures = [None, Some("PICTURE".to_owned())];
        let body = format!("<p>{MARK}1{MARK}</p><p>x{MARK}0{MARK}</p>");
        assert_eq!(place(&body, &pictures), "<p>PICTURE</p><p>x</p>");
    }

    #[test]
    fn matrix_of_another_version_or_shape_is_no_picture() {
        let mut value = serde_json::to_value(matrix()).unwrap();
        assert_eq!(Matrix::read(&value), Some(matrix()));
        value["columns"] = serde_json::json!(["only one"]);
        assert_eq!(Matrix::read(&value), None);
        let newer = Matrix { version: VERSION + 1, ..matrix() };
        assert_eq!(Matrix::read(&serde_json::to_value(newer).unwrap()), None);
        assert_eq!(summary(&matrix()), "1 rows by 2 columns: 1 leaked, 1 denied");
    }
}
