//! How a host looks: one picture for terminals and for text, from 40 columns upwards.

use modularbase_manager::{HostStatus, PackReport, PackState};
use ratatui::backend::TestBackend;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Paragraph, Row, Sparkline, Table};
use ratatui::{Frame, Terminal};

use super::budget_bar;
use super::rates::PerSecond;
use super::view::View;
use crate::packs::{one_line, reason};
use crate::terminal::{bytes_text, wrapped};
use crate::times::{age, clock, now_ms};

/// Less wide than this, lines are cut.
pub(super) const MIN_WIDTH: usize = 40;
/// Columns and rows below which there is no room for a picture.
const LEAST: (u16, u16) = (24, 12);
/// From this width on, the table says when a pack was used and how often it was loaded.
const WIDE: u16 = 72;
/// A status older than this is said to be old, seconds.
const OLD: u64 = 3;
const HINTS: &str = "q quit  ↑↓ select  p pin  e evict  s sort: ";

/// Draws the host on a terminal.
pub(super) fn draw(view: &mut View, frame: &mut Frame<'_>) {
    let area = frame.area();
    if area.width < LEAST.0 || area.height < LEAST.1 {
        frame.render_widget("too small", area);
        return;
    }
    if view.status.is_none() {
        frame.render_widget("waiting for the host ...", area);
        return;
    }
    let mut foot = detail(view, area.width.into());
    foot.push(match view.message() {
        Some(words) => words.to_owned(),
        None => format!("{HINTS}{}", view.order.word()),
    });
    let areas = Areas::new(view, area, foot.len() as u16);
    view.scroll_into(areas.table.height.saturating_sub(1).into());
    render(view, frame, &areas);
    let bold = if view.message().is_some() { Modifier::BOLD } else { Modifier::empty() };
    let last = foot.len() - 1;
    let lines = foot.into_iter().enumerate();
    let lines = lines.map(|(at, text)| Line::styled(text, if at == last { bold } else { Modifier::empty() }));
    frame.render_widget(Paragraph::new(lines.collect::<Vec<_>>()), areas.foot);
}

/// The host as lines of text with every pack, `width` columns wide.
pub(super) fn as_text(view: &View, width: u16) -> String {
    let table = view.packs().len().min(u16::MAX as usize / 2) as u16 + 1;
    let whole = Areas::new(view, Rect::new(0, 0, width, u16::MAX), 0);
    // A backend in memory can't fail: its error has no value.
    let Ok(mut terminal) = Terminal::new(TestBackend::new(width, whole.table.y + table));
    let Ok(_) = terminal.draw(|frame| render(view, frame, &Areas::new(view, frame.area(), 0)));
    let buffer = terminal.backend().buffer();
    let mut text = String::new();
    for cells in buffer.content.chunks(width.max(1).into()) {
        let line: String = cells.iter().map(|cell| cell.symbol()).collect();
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Where everything stands.
struct Areas {
    title: Rect,
    health: Rect,
    bar: Rect,
    legend: Rect,
    rates: Rect,
    diagram: Rect,
    table: Rect,
    foot: Rect,
}

impl Areas {
    fn new(view: &View, area: Rect, foot: u16) -> Self {
        let (legend, rates) = view.status.as_ref().map_or((0, 0), |status| {
            let (legend, rates) = flowing(view, status, area.width);
            (legend.len() as u16, rates.len() as u16)
        });
        let [title, health, bar, legend, rates, diagram, _, table, foot] = Layout::vertical([
            Constraint::Length(1),
            Constraint::Length(1),
            Constraint::Length(1),
            Constraint::Length(legend),
            Constraint::Length(rates),
            Constraint::Length(1),
            Constraint::Length(1),
            Constraint::Fill(1),
            Constraint::Length(foot),
        ])
        .areas(area);
        Self { title, health, bar, legend, rates, diagram, table, foot }
    }
}

/// Everything above the foot.
fn render(view: &View, frame: &mut Frame<'_>, areas: &Areas) {
    let Some(status) = &view.status else { return };
    render_title(status, frame, areas.title);
    render_health(view, status, frame, areas.health);
    let words = format!("memory  {}  ", budget_bar::sum(status));
    let [words_area, bar] =
        Layout::horizontal([Constraint::Length(words.chars().count() as u16), Constraint::Fill(1)])
            .areas(areas.bar);
    frame.render_widget(words, words_area);
    frame.render_widget(budget_bar::bar(status, bar.width.into(), view.colour), bar);
    let (legend, rates) = flowing(view, status, areas.legend.width);
    frame.render_widget(Paragraph::new(legend), areas.legend);
    frame.render_widget(Paragraph::new(rates), areas.rates);
    render_diagram(view, frame, areas.diagram);
    render_table(view, frame, areas.table);
}

/// The legend of the bar and the rates, in as many lines as they need.
fn flowing(view: &View, status: &HostStatus, width: u16) -> (Vec<Line<'static>>, Vec<Line<'static>>) {
    let legend = flow(budget_bar::legend(status, view.colour), width.into());
    (legend, flow(rates(view.rates.per_second(), status), width.into()))
}

/// Items side by side, in lines of at most `width` columns as far as each alone is not wider.
fn flow(items: Vec<Vec<Span<'static>>>, width: usize) -> Vec<Line<'static>> {
    let mut lines: Vec<Line<'static>> = Vec::new();
    for item in items {
        let wide = item.iter().map(Span::width).sum::<usize>();
        match lines.last_mut() {
            Some(line) if line.width() + 2 + wide <= width => {
                line.push_span("  ");
                item.into_iter().for_each(|span| line.push_span(span));
            }
            _ => lines.push(Line::from(item)),
        }
    }
    lines
}

fn render_title(status: &HostStatus, frame: &mut Frame<'_>, area: Rect) {
    let right = format!("pid {}  up {}", status.pid, clock(status.uptime_ms));
    let [left_area, right_area] =
        Layout::horizontal([Constraint::Fill(1), Constraint::Length(right.len() as u16 + 1)]).areas(area);
    let left = Line::from(vec![
        Span::styled("modularbase", Modifier::BOLD),
        Span::raw(format!("  {} on {}", status.base, status.device)),
    ]);
    frame.render_widget(left, left_area);
    frame.render_widget(Line::from(right).right_aligned(), right_area);
}

fn render_health(view: &View, status: &HostStatus, frame: &mut Frame<'_>, area: Rect) {
    let old = view.seen.elapsed().as_secs();
    let (words, colour) = match &status.unhealthy {
        _ if old >= OLD => (format!("NO ANSWER for {old} s; what follows is old"), Color::Red),
        Some(why) => (format!("UNHEALTHY: {}", one_line(why)), Color::Red),
        None => ("healthy".to_owned(), Color::Green),
    };
    let mut style = Style::new();
    if view.colour {
        style = style.fg(colour);
    }
    if status.unhealthy.is_some() || old >= OLD {
        style = style.add_modifier(Modifier::BOLD);
    }
    let mut spans = vec![Span::styled(words, style)];
    if let Some(folder) = &status.packs_dir {
        spans.push(Span::raw(format!("  {} packs in {}", status.packs.len(), folder.display())));
    }
    frame.render_widget(Line::from(spans), area);
}

/// The rates, and what should be noticed of the counts: an item each.
fn rates(rates: PerSecond, status: &HostStatus) -> Vec<Vec<Span<'static>>> {
    let hits = rates.hits.map_or("-".to_owned(), |hits| format!("{:.0} %", hits * 100.0));
    let mut items = vec![
        format!("requests/s {:.1}", rates.requests),
        format!("tokens/s {:.0}", rates.tokens),
        format!("loads/s {:.1}", rates.loads),
        format!("evictions/s {:.1}", rates.evictions),
        format!("hits {hits}"),
    ];
    if status.totals.omitted > 0 {
        items.push(format!("left out {}", status.totals.omitted));
    }
    items.into_iter().map(|item| vec![Span::raw(item)]).collect()
}

fn render_diagram(view: &View, frame: &mut Frame<'_>, area: Rect) {
    let most = view.rates.tokens().max().unwrap_or(0);
    let (before, after) = ("tokens/s  ", format!("  most {most}"));
    let sizes = [before.len(), 60, after.len()].map(|size| size as u16);
    let [left, middle, right] = Layout::horizontal([
        Constraint::Length(sizes[0]),
        Constraint::Max(sizes[1]),
        Constraint::Length(sizes[2]),
    ])
    .areas(area);
    frame.render_widget(before, left);
    frame.render_widget(after, right);
    // The newest stand at the right.
    let points = usize::from(middle.width);
    let mut newest: Vec<u64> = view.rates.tokens().rev().take(points).collect();
    newest.resize(points, 0);
    newest.reverse();
    let mut sparkline = Sparkline::default().data(&newest).max(most.max(1));
    if view.colour {
        sparkline = sparkline.style(Style::new().fg(Color::Cyan));
    }
    frame.render_widget(sparkline, middle);
}

fn render_table(view: &View, frame: &mut Frame<'_>, area: Rect) {
    let packs = view.packs();
    if packs.is_empty() {
        frame.render_widget("no packs: the base's own layers answer", area);
        return;
    }
    let now = now_ms();
    let wide = area.width >= WIDE;
    let longest = packs.iter().map(|pack| pack.name.chars().count()).max().unwrap_or(0);
    let name_width = longest.clamp(4, usize::from(area.width / 4).max(12)) as u16;
    let mut widths = vec![
        Constraint::Length(name_width),
        Constraint::Length(12),
        Constraint::Length(6),
        Constraint::Length(9),
        Constraint::Length(5),
    ];
    let mut header = vec!["NAME", "STATE", "LEASES", "   MEMORY", "SINCE"];
    if wide {
        widths.extend([Constraint::Length(4), Constraint::Length(5)]);
        header.extend(["USED", "LOADS"]);
    }
    widths.push(Constraint::Fill(1));
    header.push("REASON");
    let shown = packs.iter().enumerate().skip(view.offset).take(area.height.saturating_sub(1).into());
    let selected = view.selected_index();
    let rows = shown.map(|(index, pack)| {
        let row = table_row(pack, now, wide, name_width.into(), view.colour);
        if selected == Some(index) { row.style(Modifier::REVERSED) } else { row }
    });
    let table = Table::new(rows, widths).header(Row::new(header).style(Modifier::BOLD));
    frame.render_widget(table, area);
}

fn table_row(pack: &PackReport, now: u64, wide: bool, name_width: usize, colour: bool) -> Row<'static> {
    let state = format!("{}{}", pack.state, if pack.keep { "*" } else { "" });
    let memory = if pack.resident_bytes == 0 { "-".to_owned() } else { bytes_text(pack.resident_bytes) };
    let mut cells = vec![
        Cell::new(cut(&pack.name, name_width)),
        Cell::new(state).style(state_style(pack.state, colour)),
        Cell::new(format!("{:>6}", pack.leases)),
        Cell::new(format!("{memory:>9}")),
        Cell::new(format!("{:>5}", age(pack.since_ms, now))),
    ];
    if wide {
        let used = pack.last_used_ms.map_or("-".to_owned(), |at| age(at, now));
        cells.extend([Cell::new(format!("{used:>4}")), Cell::new(format!("{:>5}", pack.loads))]);
    }
    cells.push(Cell::new(one_line(&reason(pack).unwrap_or_default())));
    Row::new(cells)
}

fn state_style(state: PackState, colour: bool) -> Style {
    let style = Style::new();
    if !colour {
        return style;
    }
    match state {
        PackState::Leased => style.fg(Color::Cyan).add_modifier(Modifier::BOLD),
        PackState::Resident => style.fg(Color::Green),
        PackState::Loading | PackState::Draining => style.fg(Color::Yellow),
        PackState::Pinned => style.fg(Color::Magenta),
        PackState::Quarantined => style.fg(Color::Red),
        PackState::Evicted => style.fg(Color::DarkGray),
        PackState::Seen | PackState::Verified | PackState::Probed | PackState::Registered => style,
    }
}

/// What there is to say of the selected pack, in at most three lines.
fn detail(view: &View, width: usize) -> Vec<String> {
    let Some(pack) = view.selected_pack() else { return Vec::new() };
    let mut text = pack.name.clone();
    if let Some(version) = &pack.version {
        text.push_str(&format!(" {version}"));
    }
    if let Some(generation) = &pack.generation {
        text.push_str(&format!(" ({})", crate::packs::short(generation)));
    }
    text.push_str(&format!(": {}", pack.state));
    if let Some(why) = reason(pack) {
        text.push_str(&format!(", {}", one_line(&why)));
    }
    if pack.keep {
        text.push_str("; kept on the device (*)");
    }
    if pack.priority != 0 {
        text.push_str(&format!("; priority {}", pack.priority));
    }
    let mut lines = wrapped(&text, width);
    if lines.len() > 3 {
        lines.truncate(3);
        lines[2] = cut(&format!("{} …", lines[2]), width);
    }
    lines
}

/// At most `width` characters of a text; one that is cut ends with `…`.
fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let kept: String = text.chars().take(width.saturating_sub(1)).collect();
    format!("{kept}…")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::top::rates::Rates;
    use crate::top::view::tests::status;

    fn drawn(view: &mut View, width: u16, height: u16) -> Vec<String> {
        let Ok(mut terminal) = Terminal::new(TestBackend::new(width, height));
        let Ok(_) = terminal.draw(|frame| draw(view, frame));
        let cells = terminal.backend().buffer().content.chunks(width.into());
        cells
            .map(|cells| cells.iter().map(|cell| cell.symbol()).collect::<String>().trim_end().to_owned())
            .collect()
    }

    #[test]
    fn everything_is_seen_in_24_lines_of_80_columns() {
        let mut view = View::new(true);
        view.take(status(9), Rates::default());
        view.select_by(isize::MAX);
        let lines = drawn(&mut view, 80, 24);
        let text = lines.join("\n");
        assert!(lines[0].starts_with("modularbase  smollm2-135m-instruct on cpu"), "{text}");
        assert!(lines[0].ends_with("pid 4711  up 1:02:03"), "{text}");
        assert!(lines[1].starts_with("healthy  9 packs in /var/lib"), "{text}");
        for words in [
            "128.4 MB of 200.0 MB (64 %)  █",
            "▓ 3 packs 18.0 MB",
            "requests/s 0.0  tokens/s 0  loads/s 0.0",
            "NAME    STATE        LEASES    MEMORY SINCE USED LOADS REASON",
            "pack-03 leased            1    6.0 MB    1m  15s     3",
            "pack-02 resident*         0    6.0 MB    1m",
            "pack-00 1.0.0 (000000000000): quarantined, the file law.so has",
            "q quit  ↑↓ select  p pin  e evict  s sort: state",
        ] {
            assert!(text.contains(words), "{words}:\n{text}");
        }
        assert_eq!(lines.last().unwrap(), "q quit  ↑↓ select  p pin  e evict  s sort: state");
    }

    #[test]
    fn the_selected_pack_is_seen_in_any_size_and_no_size_is_too_small() {
        let mut view = View::new(false);
        view.take(status(60), Rates::default());
        view.select_by(isize::MAX);
        let name = view.selected_pack().unwrap().name.clone();
        for (width, height) in [(80, 24), (120, 50), (40, 20), (200, 100)] {
            let text = drawn(&mut view, width, height).join("\n");
            assert!(text.matches(&name).count() >= 2, "{width}x{height}:\n{text}");
        }
        for (width, height) in [(1, 1), (10, 3), (39, 8), (300, 2)] {
            drawn(&mut view, width, height);
        }
    }

    #[test]
    fn items_flow_into_as_many_lines_as_they_need() {
        let items = |words: &[&'static str]| words.iter().map(|word| vec![Span::raw(*word)]).collect();
        let lines = |words: &[&'static str], width| -> Vec<String> {
            flow(items(words), width).iter().map(Line::to_string).collect()
        };
        assert_eq!(lines(&["ab", "cd", "ef"], 6), ["ab  cd", "ef"]);
        assert_eq!(lines(&["abcdef", "g"], 3), ["abcdef", "g"]);
        let mut view = View::new(false);
        let mut crowded = status(9);
        crowded.held_bytes.extend([("scratch".to_owned(), 3_000_000), ("plan".to_owned(), 3_000_000)]);
        view.take(crowded, Rates::default());
        assert!(drawn(&mut view, 80, 24).join("\n").contains("· free 65.6 MB"));
    }

    #[test]
    fn what_is_wrong_with_the_host_stands_on_top() {
        let mut view = View::new(true);
        let mut ill = status(1);
        ill.unhealthy = Some("no step for 12 s".to_owned());
        view.take(ill, Rates::default());
        assert!(drawn(&mut view, 80, 24)[1].starts_with("UNHEALTHY: no step for 12 s"));
        view.say("`law` was evicted".to_owned());
        assert_eq!(drawn(&mut view, 80, 24)[23], "`law` was evicted");
    }

    #[test]
    fn as_text_every_pack_has_a_line_and_no_line_is_wider() {
        let mut view = View::new(false);
        view.take(status(40), Rates::default());
        for width in [40, 80, 100] {
            let text = as_text(&view, width);
            assert!(text.lines().all(|line| line.chars().count() <= width.into()), "{text}");
            assert_eq!(text.matches("pack-").count(), 40, "{text}");
        }
        view.take(status(0), Rates::default());
        assert!(as_text(&view, 80).contains("no packs"));
    }
}
