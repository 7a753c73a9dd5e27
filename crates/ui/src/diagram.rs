//! Boxes and the ways between them: which box one is in, where one has been,
//! and the way that is being gone.

use leptos::prelude::*;

use crate::badge::Tone;
use crate::follow::{flag, part};

/// One box.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Node {
    /// Unique in the drawing.
    pub slug: &'static str,
    pub label: &'static str,
    pub tone: Tone,
    /// Its centre.
    pub at: (i32, i32),
}

/// How boxes and ways are laid out.
#[derive(Clone, Debug, PartialEq)]
pub struct Drawing {
    /// Unique among the drawings of a page: "lying", "standing".
    pub name: &'static str,
    pub view_box: &'static str,
    /// Half of a box: across and down.
    pub half: (i32, i32),
    pub nodes: Vec<Node>,
    /// Slugs of the boxes at both ends. Two ways between the same boxes are one
    /// line with two heads.
    pub edges: Vec<(&'static str, &'static str)>,
    /// Words beside the boxes: where, and what.
    pub asides: Vec<((i32, i32), &'static str)>,
}

#[component]
pub fn Diagram(
    drawing: Drawing,
    /// What the picture says, in a sentence.
    #[prop(into)]
    label: Signal<String>,
    /// The box one is in.
    #[prop(into)]
    current: Signal<&'static str>,
    /// The boxes one has been in, in order.
    #[prop(into)]
    seen: Signal<Vec<&'static str>>,
    /// The boxes on the way that is being gone, from the current one on.
    #[prop(into)]
    way: Signal<Vec<&'static str>>,
    /// The way leads back.
    #[prop(into)]
    back: Signal<bool>,
) -> impl IntoView {
    let Drawing {
        name,
        view_box,
        half,
        nodes,
        edges,
        asides,
    } = drawing;
    let (arrow, ahead) = (format!("{name}-arrow"), format!("{name}-ahead"));
    let (arrow_end, ahead_end) = (format!("url(#{arrow})"), format!("url(#{ahead})"));
    let places = nodes.clone();
    let place = move |slug: &str| {
        let node = places.iter().find(|node| node.slug == slug);
        node.map(|node| node.at)
    };
    let lines = edges
        .iter()
        .filter(|(from, to)| !(edges.contains(&(*to, *from)) && from > to))
        .filter_map(|(from, to)| {
            let (from, to) = (*from, *to);
            let both = edges.contains(&(to, from));
            let d = line(half, place(from)?, place(to)?);
            let walked = move || {
                let fits = |pair: &[&str]| *pair == [from, to] || both && *pair == [to, from];
                seen.with(|seen| seen.windows(2).any(fits))
            };
            Some(view! {
                <path
                    class="edge"
                    d=d
                    data-walked=flag(walked)
                    marker-end=arrow_end.clone()
                    marker-start=both.then(|| arrow_end.clone())
                ></path>
            })
        })
        .map(IntoAny::into_any)
        .collect::<Vec<_>>();
    let ahead_lines = part(move || {
        let way = way.get();
        let lines = way
            .windows(2)
            .filter_map(|pair| match pair {
                [from, to] => Some(line(half, place(from)?, place(to)?)),
                _ => None,
            })
            .map(|d| {
                view! { <path class="way" d=d marker-end=ahead_end.clone()></path> }
            })
            .map(IntoAny::into_any)
            .collect::<Vec<_>>();
        Some(lines)
    });
    let boxes = nodes
        .into_iter()
        .map(|node| view! { <Place node=node half=half current=current seen=seen way=way/> })
        .map(IntoAny::into_any)
        .collect::<Vec<_>>();
    let asides = asides
        .into_iter()
        .map(|((x, y), text)| view! { <text class="aside" x=x y=y>{text}</text> })
        .map(IntoAny::into_any)
        .collect::<Vec<_>>();
    view! {
        <svg
            class="diagram"
            data-turn=name
            data-back=flag(move || back.get())
            viewBox=view_box
            role="img"
            aria-label=label
        >
            <defs>
                <Arrow id=arrow class="arrow" size="7"/>
                <Arrow id=ahead class="arrow-ahead" size="4.5"/>
            </defs>
            {lines}
            <g class="ways">{ahead_lines}</g>
            {boxes}
            {asides}
        </svg>
    }
    .into_any()
}

#[component]
fn Arrow(id: String, class: &'static str, size: &'static str) -> impl IntoView {
    view! {
        <marker id=id viewBox="0 0 8 8" refX="6.5" refY="4" markerWidth=size markerHeight=size orient="auto-start-reverse">
            <path class=class d="M1 1 7 4 1 7Z"></path>
        </marker>
    }
}

#[component]
fn Place(
    node: Node,
    half: (i32, i32),
    current: Signal<&'static str>,
    seen: Signal<Vec<&'static str>>,
    way: Signal<Vec<&'static str>>,
) -> impl IntoView {
    let Node {
        slug,
        label,
        tone,
        at: (x, y),
    } = node;
    let ahead = move || way.with(|way| way.iter().skip(1).any(|on_it| *on_it == slug));
    let goal = move || way.with(|way| way.len() > 1 && way.last() == Some(&slug));
    view! {
        <g
            class="state"
            data-state=slug
            data-tone=tone.slug()
            data-current=flag(move || current.get() == slug)
            data-seen=flag(move || seen.with(|seen| seen.contains(&slug)))
            data-ahead=flag(ahead)
            data-goal=flag(goal)
        >
            <rect x=x - half.0 y=y - half.1 width=half.0 * 2 height=half.1 * 2 rx=half.1></rect>
            <text x=x y=y + 5 text-anchor="middle">{label}</text>
        </g>
    }
}

/// A line between the borders of two boxes: straight, or in a bow where other
/// boxes of the same row stand between them.
fn line(half: (i32, i32), from: (i32, i32), to: (i32, i32)) -> String {
    let (dx, dy) = (to.0 - from.0, to.1 - from.1);
    if dy == 0 && dx.abs() > half.0 * 6 {
        let down = half.1 + 4;
        return bow((from.0, from.1 + down), (to.0, to.1 + down), (0, 40));
    }
    if dx == 0 && dy.abs() > half.1 * 10 {
        let aside = half.0 + 4;
        return bow((from.0 + aside, from.1), (to.0 + aside, to.1), (56, 0));
    }
    let (out_x, out_y) = border(half, (dx, dy), 4);
    let (in_x, in_y) = border(half, (dx, dy), 5);
    format!(
        "M{} {}L{} {}",
        from.0 + out_x,
        from.1 + out_y,
        to.0 - in_x,
        to.1 - in_y
    )
}

/// From the centre of a box the way to a little outside of its border, in the
/// direction of `d`.
fn border(half: (i32, i32), d: (i32, i32), gap: i32) -> (i32, i32) {
    let (w, h) = (half.0 + gap, half.1 + gap);
    // Which side it leaves by: that of the steeper diagonal.
    if w * d.1.abs() <= h * d.0.abs() {
        (w * d.0.signum(), w * d.1 / d.0.abs().max(1))
    } else {
        (h * d.0 / d.1.abs().max(1), h * d.1.signum())
    }
}

fn bow(from: (i32, i32), to: (i32, i32), out: (i32, i32)) -> String {
    format!(
        "M{} {}C{} {} {} {} {} {}",
        from.0,
        from.1,
        from.0 + out.0,
        from.1 + out.1,
        to.0 + out.0,
        to.1 + out.1,
        to.0,
        to.1
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const HALF: (i32, i32) = (47, 16);

    #[test]
    fn a_line_runs_from_border_to_border() {
        assert_eq!(line(HALF, (0, 0), (200, 0)), "M51 0L148 0");
        assert_eq!(line(HALF, (0, 0), (0, 88)), "M0 20L0 67");
        assert_eq!(line(HALF, (0, 0), (139, 88)), "M31 20L106 67");
    }

    #[test]
    fn a_line_past_other_boxes_bows_out() {
        assert!(line(HALF, (0, 0), (600, 0)).contains('C'));
        assert!(line(HALF, (0, 0), (0, 300)).contains('C'));
        assert!(!line(HALF, (0, 0), (600, 88)).contains('C'));
    }
}
