'use strict';
// A grid of thumbnails that holds elements for the visible objects only.

const SMALLEST = 138, GAP = 10, LABEL = 22, HEADING = 48, MARGIN = 16, AHEAD = 300;  // pixels

class Grid {
  // root: element that scrolls. source: {still(row), strip(row), describe(row)}, describe returns null until it knows.
  constructor(root, source, selection, open) {
    Object.assign(this, {root, source, selection, open, sections: [], lines: [], cells: new Map(), free: [],
                         current: 0, waiting: false});
    this.space = element('div', {className: 'space'});
    root.append(this.space);
    root.tabIndex = 0;
    root.addEventListener('scroll', () => this.soon(), {passive: true});
    root.addEventListener('keydown', event => this.key(event));
    new ResizeObserver(() => this.lay()).observe(root);
    selection.addEventListener('change', () => this.refresh());
  }

  // sections: [{title, rows, scores}], title and scores may be null.
  show(sections) {
    this.sections = sections;
    this.current = 0;
    this.root.scrollTop = 0;
    this.lay();
  }

  get rows() { return this.sections.flatMap(section => section.rows); }

  lay() {
    const width = this.root.clientWidth - 2 * MARGIN;
    this.columns = Math.max(1, Math.floor((width + GAP) / (SMALLEST + GAP)));
    this.side = Math.max(SMALLEST / 2, Math.floor((width + GAP) / this.columns) - GAP);
    this.height = this.side + LABEL;
    this.lines = [];
    let top = 0, position = 0;
    for (const section of this.sections) {
      if (section.title) {
        this.lines.push({top, heading: section.title});
        top += HEADING;
      }
      for (let start = 0; start < section.rows.length; start += this.columns) {
        const count = Math.min(this.columns, section.rows.length - start);
        this.lines.push({top, section, start, count, position});
        position += count;
        top += this.height + GAP;
      }
    }
    this.count = position;
    this.space.style.height = `${top + MARGIN}px`;
    for (const cell of this.cells.values()) this.drop(cell);
    this.cells.clear();
    this.space.querySelectorAll('.heading').forEach(each => each.remove());
    this.soon();
  }

  soon() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => { this.waiting = false; this.draw(); });
  }

  draw() {
    const from = this.root.scrollTop - AHEAD, to = this.root.scrollTop + this.root.clientHeight + AHEAD;
    let low = 0, high = this.lines.length;
    while (low < high) {  // the first line that is visible
      const middle = (low + high) >> 1;
      this.lines[middle].top + this.height < from ? low = middle + 1 : high = middle;
    }
    const wanted = new Map();
    for (let i = low; i < this.lines.length && this.lines[i].top < to; i++) wanted.set(i, this.lines[i]);
    for (const [key, cell] of this.cells) {
      if (!wanted.has(cell.line)) { this.drop(cell); this.cells.delete(key); }
    }
    for (const [i, line] of wanted) {
      if (line.heading !== undefined) this.drawHeading(i, line);
      else for (let column = 0; column < line.count; column++) this.drawCell(i, line, column);
    }
  }

  drawHeading(i, line) {
    const key = `heading${i}`;
    if (this.cells.has(key)) return;
    const root = element('h2', {className: 'heading'}, plain(line.heading));
    root.style.top = `${line.top}px`;
    this.space.append(root);
    this.cells.set(key, {root, line: i, heading: true});
  }

  drawCell(i, line, column) {
    const position = line.position + column;
    let cell = this.cells.get(position);
    if (!cell) {
      cell = this.free.pop() ?? this.make();
      Object.assign(cell, {line: i, position, row: line.section.rows[line.start + column],
                           score: line.section.scores?.[line.start + column]});
      cell.root.style.transform = `translate(${MARGIN + column * (this.side + GAP)}px, ${line.top}px)`;
      cell.root.style.width = `${this.side}px`;
      cell.root.style.height = `${this.height}px`;
      cell.turntable.show(this.source.still(cell.row), this.source.strip(cell.row));
      cell.score_.textContent = cell.score === undefined ? '' : cell.score.toFixed(3);
      cell.root.hidden = false;
      cell.named = false;
      this.cells.set(position, cell);
    }
    this.update(cell);
  }

  update(cell) {
    const known = cell.named ? null : this.source.describe(cell.row);
    if (known) {
      cell.root.title = plain(known.name);
      cell.name.textContent = cell.root.title.split('/').pop();
      cell.root.setAttribute('aria-label', plain(known.name));
      cell.named = true;
    } else if (!cell.named) cell.name.textContent = '\u2026';
    cell.box.checked = this.selection.rows.has(cell.row);
    cell.root.classList.toggle('selected', cell.box.checked);
    cell.root.classList.toggle('current', cell.position === this.current);
  }

  refresh() {
    for (const cell of this.cells.values()) if (!cell.heading) this.update(cell);
  }

  make() {
    const cell = {turntable: turntable(), name: element('div', {className: 'name'}),
                  score_: element('span', {className: 'score'}),
                  box: element('input', {type: 'checkbox', tabIndex: -1, ariaLabel: 'select'})};
    cell.root = element('div', {className: 'cell', role: 'button'}, cell.turntable.root, cell.score_, cell.box,
                        cell.name);
    cell.root.addEventListener('click', event => {
      this.current = cell.position;
      if (event.target === cell.box || event.shiftKey || event.ctrlKey || event.metaKey)
        this.selection.toggle(cell.row);
      else this.open(cell.position);
      this.refresh();
    });
    this.space.append(cell.root);
    return cell;
  }

  drop(cell) {
    if (cell.heading) { cell.root.remove(); return; }
    cell.root.hidden = true;
    this.free.push(cell);
  }

  rowAt(position) {
    for (const section of this.sections) {
      if (position < section.rows.length) return section.rows[position];
      position -= section.rows.length;
    }
    return undefined;
  }

  key(event) {
    const steps = {ArrowLeft: -1, ArrowRight: 1, ArrowUp: -this.columns, ArrowDown: this.columns};
    if (event.key in steps) this.moveTo(this.current + steps[event.key]);
    else if (event.key === 'Enter' && this.count) this.open(this.current);
    else if (event.key === ' ' && this.count) this.selection.toggle(this.rowAt(this.current));
    else return;
    event.preventDefault();
  }

  moveTo(position) {
    this.current = Math.max(0, Math.min(this.count - 1, position));
    const line = this.lines.find(each => each.position <= this.current && this.current < each.position + each.count);
    if (line) {
      const above = line.top, below = line.top + this.height + GAP - this.root.clientHeight;
      this.root.scrollTop = Math.min(above, Math.max(below, this.root.scrollTop));
    }
    this.draw();
    this.refresh();
  }
}
