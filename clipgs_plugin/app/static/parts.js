'use strict';
// Parts of both pages. Names are data of strangers: they become text, never markup.

const VIEWS = 12;  // of a thumbnail's strip

const $ = id => document.getElementById(id);

// Show characters that break lines or turn the direction of reading as one that says so.
function plain(text) {
  return String(text).replace(/[\u0000-\u001f\u007f-\u009f\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g, '\ufffd');
}

// Make an element; strings among the children become text.
function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [key, value] of Object.entries(properties)) {
    if (key.startsWith('on')) made.addEventListener(key.slice(2), value);
    else if (key in made) made[key] = value;
    else made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

// The number of objects in words.
function objects(count) {
  return `${count.toLocaleString('en')} object${count === 1 ? '' : 's'}`;
}

function button(text, onclick, properties = {}) {
  return element('button', {type: 'button', onclick, ...properties}, text);
}

// A picture of an object that turns with the pointer; `show` sets its addresses. The strip of all views, which takes
// twelve times as long to decode, is loaded when the pointer arrives.
function turntable() {
  const still = element('img', {alt: '', decoding: 'async', draggable: false});
  const strip = element('img', {alt: '', decoding: 'async', draggable: false, className: 'strip', hidden: true});
  const root = element('div', {className: 'window'}, still, strip);
  let all = '', first = '';
  root.addEventListener('pointermove', event => {
    if (strip.getAttribute('src') !== all) strip.src = all;
    if (!strip.complete || !strip.naturalWidth) return;
    strip.hidden = false;
    still.style.visibility = 'hidden';
    const box = root.getBoundingClientRect();
    const view = Math.min(VIEWS - 1, Math.max(0, Math.floor(VIEWS * (event.clientX - box.left) / box.width)));
    strip.style.transform = `translateX(${-100 * view / VIEWS}%)`;
  });
  const rest = () => { strip.hidden = true; still.style.visibility = ''; };
  root.addEventListener('pointerleave', rest);
  still.addEventListener('error', () => root.classList.add('failed'));
  const show = (address, addressOfAll) => {
    all = addressOfAll;
    if (first === address) return;
    first = address;
    root.classList.remove('failed');
    rest();
    still.src = address;
  };
  return {root, show};
}

// Chosen objects, with listeners.
class Selection extends EventTarget {
  rows = new Set();

  toggle(row, on = !this.rows.has(row)) {
    on ? this.rows.add(row) : this.rows.delete(row);
    this.dispatchEvent(new Event('change'));
  }

  replace(rows) {
    this.rows = new Set(rows);
    this.dispatchEvent(new Event('change'));
  }
}

// A button that selects an object, or takes it from the selection.
function chooser(selection, row) {
  const word = () => selection.rows.has(row) ? 'selected' : 'select';
  const made = button(word(), () => { selection.toggle(row); made.textContent = word(); });
  return made;
}

// Offer content as a file.
function save(content, name, type) {
  const address = URL.createObjectURL(new Blob([content], {type}));
  element('a', {href: address, download: name}).click();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
}

// A button for each value of a column, with its count.
function facets(values, chosen, choose) {
  return element('div', {className: 'facets'}, ...values.map(([value, count]) => element('button', {
    type: 'button', title: plain(value), ariaPressed: String(value === chosen),
    onclick: () => choose(value === chosen ? null : value),
  }, element('bdi', {}, plain(value)), element('span', {}, String(count)))));
}
