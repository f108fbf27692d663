// SPDX-License-Identifier: MIT OR Apache-2.0
//! A topology as boxes in boxes, in SVG.

#![forbid(unsafe_code)]

use super::text::{label, size, type_name};
use std::fmt::Write as _;
use xpmem::hwloc::layout::ty;
use xpmem::hwloc::tool::file::Object;

/// Height of a line of text, and the width of one character of it.
const LINE: f64 = 15.0;
const CHARACTER: f64 = 6.7;
/// Space around and between boxes.
const GAP: f64 = 5.0;

/// A box with its place relative to the one around it.
struct Shape {
    x: f64,
    y: f64,
    width: f64,
    height: f64,
    title: String,
    fill: &'static str,
    inside: Vec<Shape>,
}

/// Draws the whole tree.
pub fn draw(root: &Object) -> String {
    let mut shape = shape(root);
    (shape.x, shape.y) = (GAP, GAP);
    let (width, height) = (shape.width + 2.0 * GAP, shape.height + 2.0 * GAP);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" \
         viewBox=\"0 0 {width:.0} {height:.0}\" font-family=\"DejaVu Sans, sans-serif\" \
         font-size=\"11\">\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n"
    );
    paint(&shape, 0.0, 0.0, &mut out);
    out.push_str("</svg>\n");
    out
}

fn fill(obj: &Object) -> &'static str {
    match obj.kind {
        ty::MACHINE | ty::GROUP => "#f7f7f7",
        1 => "#dee3ee",
        ty::DIE => "#e8ecf4",
        2 => "#c3cbd9",
        ty::PU => "#ffffff",
        ty::NUMANODE => "#efdfde",
        ty::MEMCACHE => "#f5ecd7",
        ty::BRIDGE => "#ffffff",
        ty::PCI_DEVICE | ty::OS_DEVICE => "#d9ead3",
        ty::MISC => "#fff2cc",
        _ => "#f2f2f2",
    }
}

/// Short where there are many.
fn title(obj: &Object) -> String {
    match obj.kind {
        2 | ty::PU if obj.os_index != u32::MAX => format!("{} P#{}", type_name(obj), obj.os_index),
        2 | ty::PU => format!("{} L#{}", type_name(obj), obj.logical_index),
        ty::L1CACHE..=ty::L3ICACHE if obj.attr.cache_size() != 0 => {
            format!("{} ({})", type_name(obj), size(obj.attr.cache_size()))
        }
        _ => label(obj),
    }
}

fn shape(obj: &Object) -> Shape {
    let title = title(obj);
    let mut inside = Vec::new();
    let mut width = title.chars().count() as f64 * CHARACTER + 2.0 * GAP;
    let mut y = LINE + GAP;
    // Memory above, processors below it; devices and the rest under them.
    for list in [&obj.memory, &obj.normal, &obj.io, &obj.misc] {
        if list.is_empty() {
            continue;
        }
        let block = grid(list.iter().map(shape).collect());
        for mut child in block.shapes {
            child.y += y;
            child.x += GAP;
            inside.push(child);
        }
        width = width.max(block.width + 2.0 * GAP);
        y += block.height + GAP;
    }
    Shape {
        x: 0.0,
        y: 0.0,
        width,
        height: y.max(LINE + GAP),
        title,
        fill: fill(obj),
        inside,
    }
}

struct Block {
    shapes: Vec<Shape>,
    width: f64,
    height: f64,
}

/// Rows of shapes, about one and a half times as wide as high.
fn grid(mut shapes: Vec<Shape>) -> Block {
    let widest = shapes.iter().map(|s| s.width).fold(1.0, f64::max) + GAP;
    let highest = shapes.iter().map(|s| s.height).fold(1.0, f64::max) + GAP;
    let ideal = (shapes.len() as f64 * highest / widest * 1.5).sqrt().ceil();
    let columns = (ideal.max(1.0) as usize).clamp(1, shapes.len().max(1));
    // As many rows, but evenly filled.
    let columns = shapes
        .len()
        .div_ceil(shapes.len().div_ceil(columns).max(1))
        .max(1);
    let (mut x, mut y, mut row) = (0.0f64, 0.0f64, 0.0f64);
    let mut width = 0.0f64;
    for (i, shape) in shapes.iter_mut().enumerate() {
        if i > 0 && i % columns == 0 {
            (x, y) = (0.0, y + row + GAP);
            row = 0.0;
        }
        (shape.x, shape.y) = (x, y);
        x += shape.width + GAP;
        width = width.max(x - GAP);
        row = row.max(shape.height);
    }
    Block {
        shapes,
        width,
        height: y + row,
    }
}

/// Titles may hold text of the file.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

fn paint(shape: &Shape, x: f64, y: f64, out: &mut String) {
    let (x, y) = (x + shape.x, y + shape.y);
    let _ = writeln!(
        out,
        "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{}\" \
         stroke=\"#444444\" stroke-width=\"0.8\"/>\n<text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
        shape.width,
        shape.height,
        shape.fill,
        x + GAP,
        y + LINE,
        escaped(&shape.title)
    );
    for child in &shape.inside {
        paint(child, x, y, out);
    }
}
