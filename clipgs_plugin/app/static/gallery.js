'use strict';
// The page that tools/gallery.py writes: everything is in data.js, and nothing is asked for.

const data = window.GALLERY;
const selection = new Selection();
const state = {grouping: data.groupings[0], group: null, near: null};

const source = {
  still: row => `thumbnails/${row}.webp`,
  strip: row => `strips/${row}.webp`,
  viewer: row => data.viewers ? `viewers/${row}.html` : null,
  describe: row => ({name: data.names[row], facts: data.facts[row]}),
  load: async row => source.describe(row),
};
const {grid, panel, open} = gridWithPanel(source, selection, actions);
let map = null;

function actions(row) {
  return [element('div', {className: 'buttons'}, button('more like this', () => {
    panel.dialog.close();
    state.near = row;
    refresh();
  }, {className: 'main'}), chooser(selection, row))];
}

// Colours of equal lightness whose neighbours differ most in hue.
const color = i => `oklch(${[64, 72, 57][i % 3]}% ${[0.15, 0.11, 0.13][i % 3]} ${i * 137.508 % 360})`;

function refresh() {
  const part = $('text').value.toLowerCase(), {values, of} = state.grouping;
  const meets = row => data.names[row].toLowerCase().includes(part) && (state.group === null || of[row] === state.group);
  let sections;
  if (state.near !== null) {
    sections = [{title: `like ${data.names[state.near]}`, rows: [state.near, ...data.near[state.near]]}];
  } else {
    const groups = values.map(() => []);
    data.names.forEach((_, row) => { if (meets(row)) groups[of[row]].push(row); });
    sections = groups.map((rows, i) => ({title: `${values[i]} (${rows.length})`, rows}))
      .filter(section => section.rows.length);
  }
  grid.show(sections);
  const rows = grid.rows;
  map?.highlight(rows.length === data.names.length ? null : rows);
  $('message').textContent = `${rows.length.toLocaleString('en')} of ${objects(data.names.length)}`;
  $('reset').hidden = rows.length === data.names.length && state.near === null;
}

function drawGroups() {
  const {values, of} = state.grouping, counts = values.map(() => 0);
  of.forEach(i => counts[i]++);
  const entries = values.map((value, i) => [value, counts[i]]).filter(([, count]) => count);
  const chosen = state.group === null ? null : values[state.group];
  $('groupings').replaceChildren(...data.groupings.map(each => button(plain(each.title), () => {
    Object.assign(state, {grouping: each, group: null, near: null});
    drawGroups();
    refresh();
    map?.soon();
  }, {ariaPressed: String(each === state.grouping)})));
  const list = facets(entries, chosen, value => {
    Object.assign(state, {group: value === null ? null : values.indexOf(value), near: null});
    drawGroups();
    refresh();
  });
  list.style.maxHeight = 'none';
  $('groups').replaceChildren(list);
  $('legend').replaceChildren(...values.slice(0, 60).map((value, i) => {
    const dot = element('i');
    dot.style.background = color(i);
    return element('span', {}, dot, element('bdi', {}, plain(value)));
  }));
}

function showMap(on) {
  showView(on);
  $('legend').hidden = !on;
  if (on && !map) {
    map = new MapView($('map'), {...data.map, rows: data.names.map((_, row) => row)},
                      row => color(state.grouping.of[row]), source, row => open(row));
    refresh();
  }
}

$('title').textContent = document.title = plain(data.title);
$('title').title = `${data.model}; map: ${data.map.note}`;
$('search').addEventListener('submit', event => event.preventDefault());
$('text').addEventListener('input', () => { state.near = null; refresh(); });
$('as-grid').addEventListener('click', () => showMap(false));
$('as-map').addEventListener('click', () => showMap(true));
$('reset').addEventListener('click', () => {
  Object.assign(state, {group: null, near: null});
  $('text').value = '';
  drawGroups();
  refresh();
});
$('save').addEventListener('click', () => save([...selection.rows].map(row => `${data.names[row]}\n`).join(''),
                                               'selection.txt', 'text/plain'));
selection.addEventListener('change', () => {
  $('chosen').textContent = `${selection.rows.size.toLocaleString('en')} selected`;
  $('save').disabled = $('choose-none').disabled = !selection.rows.size;
});
selection.replace([]);
drawGroups();
refresh();
