'use strict';
// A map of embeddings to walk through: drag to move, wheel to come nearer; thumbnails replace dots where few are seen.

const FEW = 200, PICTURE = 56;  // objects that are drawn as pictures, and their side in pixels

class MapView {
  // places: {rows, x, y}. colors: row -> CSS colour. source: {still(row), strip(row), describe(row)}.
  constructor(root, places, colors, source, open) {
    Object.assign(this, {root, places, colors, source, open, images: new Map(), drag: null, waiting: false});
    this.canvas = element('canvas');
    this.turntable = turntable();
    this.name = element('bdi');
    this.hover = element('div', {className: 'hover', hidden: true}, this.turntable.root, this.name);
    root.replaceChildren(this.canvas, this.hover);
    this.place = new Map(places.rows.map((row, i) => [row, i]));
    this.shown = null;
    const [left, right] = ends(places.x), [bottom, top] = ends(places.y);
    this.center = [(left + right) / 2, (bottom + top) / 2];
    this.extent = Math.max(right - left, top - bottom, 1e-9);
    this.zoom = 1;
    this.canvas.addEventListener('wheel', event => this.wheel(event), {passive: false});
    this.canvas.addEventListener('pointerdown', event => this.press(event));
    this.canvas.addEventListener('pointermove', event => this.move(event));
    this.canvas.addEventListener('pointerup', event => this.release(event));
    this.canvas.addEventListener('pointerleave', () => { this.hover.hidden = true; });
    new ResizeObserver(() => this.soon()).observe(root);
  }

  // Rows to draw in colour; null for all.
  highlight(rows) {
    this.shown = rows && new Set(rows);
    this.soon();
  }

  // Pixels a unit; the size of the page is asked for once a picture, since asking lays the page out.
  get scale() { return 0.88 * Math.min(this.root.clientWidth, this.root.clientHeight) / this.extent * this.zoom; }

  // A function from a number to its place in pixels.
  projection() {
    const scale = this.scale, {x, y} = this.places;
    const left = this.root.clientWidth / 2 - this.center[0] * scale;
    const top = this.root.clientHeight / 2 + this.center[1] * scale;
    return i => [x[i] * scale + left, top - y[i] * scale];
  }

  soon() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => { this.waiting = false; this.draw(); });
  }

  draw() {
    const {clientWidth: width, clientHeight: height} = this.root, ratio = devicePixelRatio || 1;
    if (!width || !height) return;
    this.canvas.width = width * ratio;
    this.canvas.height = height * ratio;
    const pen = this.canvas.getContext('2d');
    pen.scale(ratio, ratio);
    const pixel = this.projection(), visible = [];
    for (let i = 0; i < this.places.rows.length; i++) {
      const [x, y] = pixel(i);
      if (x > -PICTURE && y > -PICTURE && x < width + PICTURE && y < height + PICTURE) visible.push([i, x, y]);
    }
    const pictures = visible.length <= FEW, dots = new Map();  // one path a colour
    for (const [i, x, y] of visible) {
      const row = this.places.rows[i], faint = this.shown !== null && !this.shown.has(row);
      const image = pictures ? this.image(row) : null;
      pen.globalAlpha = faint ? 0.12 : 1;
      if (image) pen.drawImage(image, x - PICTURE / 2, y - PICTURE / 2, PICTURE, PICTURE);
      const key = (faint ? '-' : '+') + this.colors(row);
      if (!dots.has(key)) dots.set(key, new Path2D());
      dots.get(key).rect(x - 2.5, image ? y + PICTURE / 2 : y - 2.5, 5, 5);
    }
    for (const [key, path] of dots) {
      pen.globalAlpha = key[0] === '-' ? 0.12 : 0.9;
      pen.fillStyle = key.slice(1);
      pen.fill(path);
    }
  }

  image(row) {
    let image = this.images.get(row);
    if (!image) {
      if (this.images.size > 4 * FEW) this.images.clear();
      image = new Image();
      image.onload = () => this.soon();
      image.src = this.source.still(row);
      this.images.set(row, image);
    }
    return image.complete && image.naturalWidth ? image : null;
  }

  nearest(event) {
    const box = this.canvas.getBoundingClientRect();
    const pixel = this.projection();
    let best = -1, least = 20 ** 2;
    for (let i = 0; i < this.places.rows.length; i++) {
      const [x, y] = pixel(i);
      const distance = (x - event.clientX + box.left) ** 2 + (y - event.clientY + box.top) ** 2;
      if (distance < least) [best, least] = [i, distance];
    }
    return best < 0 ? undefined : this.places.rows[best];
  }

  wheel(event) {
    event.preventDefault();
    const box = this.canvas.getBoundingClientRect();
    const dx = event.clientX - box.left - box.width / 2, dy = event.clientY - box.top - box.height / 2;
    const before = this.scale;
    this.zoom = Math.min(400, Math.max(0.5, this.zoom * Math.exp(-event.deltaY / 400)));
    const change = 1 / before - 1 / this.scale;  // the place under the pointer stays
    this.center = [this.center[0] + dx * change, this.center[1] - dy * change];
    this.soon();
  }

  press(event) {
    this.canvas.setPointerCapture(event.pointerId);
    this.drag = {x: event.clientX, y: event.clientY, center: this.center, moved: false};
  }

  move(event) {
    if (this.drag) {
      const dx = event.clientX - this.drag.x, dy = event.clientY - this.drag.y;
      this.drag.moved ||= Math.hypot(dx, dy) > 4;
      this.center = [this.drag.center[0] - dx / this.scale, this.drag.center[1] + dy / this.scale];
      this.soon();
      return;
    }
    const row = this.nearest(event);
    this.hover.hidden = row === undefined;
    if (row === undefined) return;
    this.turntable.show(this.source.still(row), this.source.strip(row));
    this.name.textContent = plain(this.source.describe(row)?.name ?? '\u2026');
    const box = this.root.getBoundingClientRect();
    this.hover.style.left = `${Math.min(event.clientX - box.left + 14, box.width - 160)}px`;
    this.hover.style.top = `${Math.min(event.clientY - box.top + 14, box.height - 200)}px`;
  }

  release(event) {
    const moved = this.drag?.moved;
    this.drag = null;
    const row = moved ? undefined : this.nearest(event);
    if (row !== undefined) this.open(row);
  }
}

function ends(values) {
  let low = Infinity, high = -Infinity;
  for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return [low, high];
}
