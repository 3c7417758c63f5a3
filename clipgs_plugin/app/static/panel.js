'use strict';
// One object: the splat itself, its facts, and what can be done with it.

class Panel {
  // source: {still(row), strip(row), viewer(row) or null, load(row) -> Promise}. actions: (row, known) -> buttons and editors.
  constructor(source, actions, step) {
    Object.assign(this, {source, actions, step, row: null});
    this.turntable = turntable();
    this.stage = element('div', {className: 'stage'}, this.turntable.root);
    this.name = element('bdi');
    this.rest = element('div', {className: 'rest'});  // of the side; the buttons stay, and the focus with them
    this.side = element('div', {className: 'side'}, element('h2', {}, this.name), element('div', {className: 'buttons'},
      button('\u2190', () => this.step(-1), {ariaLabel: 'previous'}),
      button('\u2192', () => this.step(1), {ariaLabel: 'next'}), button('close', () => this.dialog.close())), this.rest);
    this.dialog = element('dialog', {ariaLabel: 'object', tabIndex: -1},
                          element('div', {className: 'panel'}, this.stage, this.side));
    this.dialog.addEventListener('close', () => this.clear());
    this.dialog.addEventListener('click', event => { if (event.target === this.dialog) this.dialog.close(); });
    this.dialog.addEventListener('keydown', event => {
      if (event.target.tagName === 'INPUT' || !['ArrowLeft', 'ArrowRight'].includes(event.key)) return;
      event.preventDefault();
      this.step(event.key === 'ArrowLeft' ? -1 : 1);
    });
    document.body.append(this.dialog);
  }

  async show(row) {
    this.row = row;
    this.clear();
    this.turntable.show(this.source.still(row), this.source.strip(row));
    if (!this.dialog.open) { this.dialog.showModal(); this.dialog.focus(); }
    try {
      const known = await this.source.load(row);
      if (this.row === row) { this.tell(known); this.view(row); }
    } catch (error) {
      if (this.row === row) this.rest.replaceChildren(element('p', {className: 'note bad'}, plain(error.message)));
      throw error;
    }
  }

  // Put the splat itself in place of its picture.
  view(row) {
    const address = this.source.viewer(row);
    if (!address) return;
    // An opaque origin: the viewer reads nothing of this page, and has no network.
    const frame = element('iframe', {title: 'the splat', src: address});
    frame.setAttribute('sandbox', 'allow-scripts');
    this.frame = frame;
    frame.hidden = true;
    frame.addEventListener('load', () => { frame.hidden = false; });
    this.stage.append(frame);
  }

  tell(known) {
    const facts = Object.entries(known.facts).flatMap(([key, value]) => [
      element('dt', {}, plain(key).replaceAll('_', ' ')), element('dd', {}, element('bdi', {}, shown(value)))]);
    this.name.textContent = plain(known.name);
    this.rest.replaceChildren(...this.actions(this.row, known), element('dl', {}, ...facts));
  }

  clear() {
    this.frame?.remove();
    this.frame = null;
    this.name.textContent = '\u2026';
    this.rest.replaceChildren();
  }
}

// A grid whose objects open in a panel, where arrows leaf through them. attempt: runs what may fail.
function gridWithPanel(source, selection, actions, attempt = work => work()) {
  const open = (row, position) => {
    if (position !== undefined) grid.current = position;
    return attempt(() => panel.show(row));
  };
  const grid = new Grid($('grid'), source, selection, position => open(grid.rowAt(position), position));
  const panel = new Panel(source, actions, step => {
    const position = Math.max(0, Math.min(grid.count - 1, grid.current + step));
    if (position === grid.current) return;
    grid.moveTo(position);
    attempt(() => panel.show(grid.rowAt(position)));
  });
  $('choose-all').addEventListener('click', () => selection.replace(grid.rows));
  $('choose-none').addEventListener('click', () => selection.replace([]));
  return {grid, panel, open};
}

// Show the map in place of the grid, or the grid again.
function showView(map) {
  $('map').hidden = !map;
  $('grid').hidden = map;
  $('as-map').ariaPressed = String(map);
  $('as-grid').ariaPressed = String(!map);
}

function shown(value) {
  return typeof value === 'number' && !Number.isInteger(value) ? String(Number(value.toPrecision(4)))
    : typeof value === 'number' ? value.toLocaleString('en') : plain(value);
}
