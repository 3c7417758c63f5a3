'use strict';
// The page that tools/serve.py serves: searches, filters, tags and exports by requests to its server.

const state = {query: {}, title: '', where: new Map(), conditions: [], tag: null, latest: 0, index: null};
const selection = new Selection();

// An address with the state of the index that this page was made from, in which its rows have their meaning.
function at(address) {
  return state.index ? `${address}${address.includes('?') ? '&' : '?'}state=${state.index.state}` : address;
}

async function ask(address, body) {
  const response = await fetch(at(address), body === undefined ? {} : {
    method: 'POST', body: body instanceof File ? body : JSON.stringify(body),
    headers: {'X-CLIPGS': '1', 'Content-Type': body instanceof File ? 'application/octet-stream' : 'application/json'},
  }).catch(() => { throw new Error('the program does not answer; start it again and open the address it prints'); });
  if (response.status === 409) $('old').hidden = false;
  if (!response.ok) {
    const answer = await response.json().catch(() => ({}));
    throw new Error(answer.error ?? `the server answered ${response.status}`);
  }
  return response;
}

const json = (...request) => ask(...request).then(response => response.json());

function say(text, bad = false) {
  $('message').textContent = plain(text);
  $('message').classList.toggle('bad', bad);
}

// Run something that may fail, and show why it did.
async function attempt(work) {
  try { await work(); } catch (error) { say(error.message, true); }
}

// Names and facts of objects, asked for in groups as the grid needs them.
class Source {
  known = new Map();
  wanted = new Set();
  timer = null;

  still(row) { return at(`thumbnails/${row}.webp`); }

  strip(row) { return at(`strips/${row}.webp`); }

  viewer(row) {
    const dark = matchMedia('(prefers-color-scheme: dark)').matches;
    return state.index.viewer ? at(`objects/${row}/viewer?dark=${dark}`) : null;
  }

  describe(row) {
    if (this.known.has(row)) return this.known.get(row);
    this.wanted.add(row);
    this.timer ??= setTimeout(() => attempt(() => this.fetch()), 30);
    return null;
  }

  async fetch() {
    const rows = [...this.wanted].slice(-400);  // what was seen last
    this.wanted.clear();
    this.timer = null;
    if (this.known.size > 50000) this.known.clear();
    for (const each of await json('api/details', {rows})) this.known.set(each.row, each);
    grid.refresh();
  }

  async load(row) {
    const [each] = await json('api/details', {rows: [row]});
    this.known.set(row, each);
    return each;
  }
}

const source = new Source();
const {grid, panel, open} = gridWithPanel(source, selection, actions, attempt);
let map = null;

function actions(row, known) {
  const tag = element('input', {placeholder: 'tag', ariaLabel: 'tag of this object', maxLength: 60});
  const change = (name, on) => attempt(async () => {
    drawTags(await json('api/tags', {tag: name, rows: [row], on}));
    panel.tell(await source.load(row));
  });
  return [
    element('div', {className: 'buttons'}, button('more like this', () => {
      panel.dialog.close();
      search({like: row}, `like ${known.name}`);
    }, {className: 'main'}), chooser(selection, row), button('download', () => {
      element('a', {href: at(`objects/${row}/file`), download: ''}).click();
    })),
    element('div', {className: 'chips'}, ...known.tags.map(name => button(`${plain(name)} \u00d7`,
      () => change(name, false), {title: 'remove this tag'}))),
    element('form', {className: 'line', onsubmit: event => {
      event.preventDefault();
      if (tag.value.trim()) change(tag.value, true);
    }}, tag, element('button', {}, 'tag')),
  ];
}

function search(query, title) {
  Object.assign(state, {query, title});
  return refresh();
}

// Ask for the objects of the query that meet the conditions.
async function refresh() {
  const number = ++state.latest;
  const where = [...state.where.values(), ...state.conditions];
  if ($('name').value) where.push(`path~${$('name').value}`);
  say('\u2026');
  await attempt(async () => {
    const found = await json('api/find', {...state.query, where, tag: state.tag});
    if (number !== state.latest) return;  // a later one is under way
    $('old').hidden = !found.changed;
    grid.show([{title: null, rows: found.rows, scores: found.scores}]);
    map?.highlight(found.scores ? found.rows.slice(0, 50)
      : found.rows.length === state.index.count ? null : found.rows);
    const count = found.rows.length, of = `${count.toLocaleString('en')} of ${objects(found.total)}`;
    say(state.title ? `${of} nearest to: ${state.title}` : objects(count));
    $('reset').hidden = !(state.title || where.length || state.tag);
  });
}

function drawFilters() {
  $('chips').replaceChildren(...state.conditions.map((each, i) => button(`${plain(each)} \u00d7`, () => {
    state.conditions.splice(i, 1);
    drawFilters();
    refresh();
  })));
  $('filters').replaceChildren(...state.index.columns.flatMap(column => [
    element('h2', {}, plain(column.name).replaceAll('_', ' ')),
    column.kind === 'text' ? textFilter(column) : numberFilter(column)]));
}

function setWhere(key, condition) {
  condition === null ? state.where.delete(key) : state.where.set(key, condition);
  refresh();
}

function textFilter(column) {
  const chosen = state.where.get(column.name)?.slice(column.name.length + 1) ?? null;
  return facets(column.values, chosen, value => {
    setWhere(column.name, value === null ? null : `${column.name}=${value}`);
    drawFilters();
  });
}

function numberFilter(column) {
  const bound = (sign, placeholder) => element('input', {
    type: 'number', step: 'any', placeholder: Number(placeholder.toPrecision(4)),
    ariaLabel: `${column.name} ${sign}`, value: state.where.get(column.name + sign)?.slice(column.name.length + 2) ?? '',
    onchange: event => setWhere(column.name + sign, event.target.value && `${column.name}${sign}${event.target.value}`
      || null)});
  return element('div', {className: 'range'}, bound('>=', column.low), bound('<=', column.high));
}

function drawTags(tags) {
  state.index.tags = tags;
  const entries = Object.entries(tags);
  $('tags').replaceChildren(entries.length ? facets(entries, state.tag, tag => {
    state.tag = tag;
    drawTags(state.index.tags);
    refresh();
  }) : element('p', {className: 'note'}, 'none yet'));
}

function drawChosen() {
  const count = selection.rows.size;
  $('chosen').textContent = `${count.toLocaleString('en')} selected`;
  for (const id of ['choose-none', 'tag-on', 'tag-off', 'copy']) $(id).disabled = !count;
  document.querySelectorAll('[data-kind]').forEach(each => { each.disabled = !count; });
}

function upload(kind, input) {
  const [file] = input.files;
  input.value = '';
  if (!file) return;
  say(`embedding ${file.name} \u2026`);
  attempt(async () => {
    const {query} = await json(`api/query?kind=${kind}&name=${encodeURIComponent(file.name)}`, file);
    await search({query}, `the upload ${file.name}`);
  });
}

// Lay out the map, at first or by another method; a long computation answers by null until it is done.
async function showMap(on) {
  showView(on);
  $('method').hidden = !on || !state.index.umap;
  const method = $('method').value;
  if (!on || map?.method === method) return;
  say(method === 'umap' ? 'laying out the map by UMAP, which may take minutes \u2026' : 'laying out the map \u2026');
  let places = null;
  while (places === null) {
    places = await json(`api/map?method=${method}`);
    if ($('method').value !== method) return;
  }
  const style = getComputedStyle(document.documentElement);
  map = new MapView($('map'), places, row => selection.rows.has(row) ? '#e0752d'
    : style.getPropertyValue('--accent'), source, row => open(row));
  map.method = method;
  await refresh();
}

function listen() {
  $('search').addEventListener('submit', event => {
    event.preventDefault();
    const text = $('text').value.trim();
    search(text ? {text} : {}, text);
  });
  for (const kind of ['image', 'splat']) $(kind).addEventListener('change', event => upload(kind, event.target));
  $('name').addEventListener('change', refresh);
  $('condition').addEventListener('change', event => {
    if (!event.target.value.trim()) return;
    state.conditions.push(event.target.value.trim());
    event.target.value = '';
    drawFilters();
    refresh();
  });
  $('reset').addEventListener('click', () => {
    state.where.clear();
    state.conditions = [];
    state.tag = null;
    $('text').value = $('name').value = '';
    drawFilters();
    drawTags(state.index.tags);
    return search({}, '');
  });
  $('as-grid').addEventListener('click', () => showMap(false));
  for (const [id, event] of [['as-map', 'click'], ['method', 'change']])
    $(id).addEventListener(event, () => attempt(() => showMap(true)));
  $('reload').addEventListener('click', () => location.reload());
  selection.addEventListener('change', () => { drawChosen(); map?.soon(); });
  for (const [id, on] of [['tag-on', true], ['tag-off', false]]) $(id).addEventListener('click', () => attempt(
    async () => {
      const rows = [...selection.rows];
      drawTags(await json('api/tags', {tag: $('tag').value, rows, on}));
      rows.forEach(row => source.known.delete(row));
      say(`${on ? 'tagged' : 'untagged'} ${objects(rows.length)}`);
    }));
  document.querySelectorAll('[data-kind]').forEach(each => each.addEventListener('click', () => attempt(async () => {
    const {kind} = each.dataset;
    const answer = await ask('api/list', {rows: [...selection.rows], kind});
    save(await answer.blob(), `selection.${kind}`, answer.headers.get('content-type'));
  })));
  $('copy').addEventListener('click', () => attempt(async () => {
    const {folder} = await json('api/copy', {rows: [...selection.rows], folder: $('folder').value});
    say(`copied ${selection.rows.size} files to ${folder}`);
  }));
}

attempt(async () => {
  history.replaceState(null, '', location.pathname);  // the token is a cookie now
  state.index = await json('api/index');
  $('title').textContent = document.title = `${state.index.count.toLocaleString('en')} splats, ${state.index.model}`;
  $('copying').hidden = state.index.exports === null;
  drawFilters();
  drawTags(state.index.tags);
  drawChosen();
  listen();
  await refresh();
});
