//! Alignments as pictures: a row for each character written, a column for each character read.

use std::fmt::Write as _;

/// Weights of one head, row by row.
type Panel = Vec<Vec<f32>>;

/// In the terminal: five shades.
pub(crate) fn text((read, written): (&str, &str), panels: &[Panel]) {
    const SHADES: [char; 5] = [' ', '░', '▒', '▓', '█'];
    for (head, panel) in panels.iter().enumerate() {
        println!("  head {} of {}\n      {read}", head + 1, panels.len());
        for (c, row) in written.chars().zip(panel) {
            let shades: String = row.iter().map(|w| SHADES[((w * 5.0) as usize).min(4)]).collect();
            println!("    {c} {}", shades.trim_end());
        }
    }
}

const CELL: usize = 22;
const LEFT: usize = 70;
const TOP: usize = 64;

/// As an SVG file: the darker, the heavier.
pub(crate) fn svg(title: &str, (read, written): (&str, &str), panels: &[Panel]) -> String {
    let (columns, rows) = (read.chars().count(), written.chars().count());
    let panel_height = (rows + 1) * CELL + 40;
    let (width, height) = (LEFT + columns * CELL + 20, TOP + panels.len() * panel_height + 30);
    let mut out = format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" font-family="monospace" font-size="15" text-anchor="middle" fill="#222">
<rect width="100%" height="100%" fill="#fff"/>
<text x="20" y="28" text-anchor="start" font-size="18" font-weight="bold">{title}</text>
<text x="20" y="48" text-anchor="start" font-size="12">rows: characters written; columns: characters read; the darker, the heavier the weight</text>
"##
    );
    for (head, panel) in panels.iter().enumerate() {
        let top = TOP + head * panel_height + 30;
        if panels.len() > 1 {
            let _ = writeln!(out, r#"<text x="20" y="{}" text-anchor="start" font-size="13">head {}</text>"#, top - 8, head + 1);
        }
        grid(&mut out, (read, written), panel, top);
    }
    out + "</svg>\n"
}

fn grid(out: &mut String, (read, written): (&str, &str), panel: &Panel, top: usize) {
    for (i, c) in read.chars().enumerate().filter(|(_, c)| *c != ' ') {
        let _ = writeln!(out, r#"<text x="{}" y="{}">{c}</text>"#, LEFT + i * CELL + CELL / 2, top + CELL - 7);
    }
    for (row, (c, weights)) in written.chars().zip(panel).enumerate() {
        let y = top + (row + 1) * CELL;
        let _ = writeln!(out, r#"<text x="{}" y="{}">{c}</text>"#, LEFT - 14, y + CELL - 6);
        for (column, weight) in weights.iter().enumerate().filter(|(_, weight)| **weight >= 0.005) {
            let x = LEFT + column * CELL;
            let cell = format!(r#"x="{x}" y="{y}" width="{CELL}" height="{CELL}""#);
            let _ = writeln!(out, r##"<rect {cell} fill="#0b4f9e" fill-opacity="{weight:.2}"/>"##);
        }
    }
    let (columns, rows) = (read.chars().count(), written.chars().count());
    let across = (0..=rows).map(|row| format!("M{LEFT} {}h{}", top + (row + 1) * CELL, columns * CELL));
    let down = (0..=columns).map(|column| format!("M{} {}v{}", LEFT + column * CELL, top + CELL, rows * CELL));
    let lines: String = across.chain(down).collect();
    let _ = writeln!(out, r##"<path d="{lines}" stroke="#ccd" stroke-width="0.5"/>"##);
}
