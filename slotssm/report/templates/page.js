"use strict";

/* --- colour scheme: auto, light, dark --- */

const theme = document.getElementById("theme");
const schemes = ["auto", "light", "dark"];

function show(scheme) {
  if (scheme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = scheme;
  theme.textContent = scheme;
  theme.setAttribute("aria-label", `Colour scheme: ${scheme}`);
}

function stored() {
  // a browser may refuse to store anything for a file
  try { return localStorage.getItem("slotssm-theme"); } catch { return null; }
}

show(schemes.includes(stored()) ? stored() : "auto");
theme.addEventListener("click", () => {
  const next = schemes[(schemes.indexOf(theme.textContent) + 1) % schemes.length];
  show(next);
  try { localStorage.setItem("slotssm-theme", next); } catch { /* it lasts until the page is left */ }
});

/* --- tables that sort --- */

function keyOf(row, column) {
  const cell = row.cells[column];
  if (cell.dataset.value !== undefined) return Number(cell.dataset.value);
  const text = cell.textContent.trim();
  return text === "" || text === "–" ? null : text;
}

function compare(a, b) {
  if (typeof a === "number" && typeof b === "number") return a - b;
  if (typeof a === "number") return -1;
  if (typeof b === "number") return 1;
  return a.localeCompare(b, "en", { numeric: true });
}

function sortBy(table, column) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  const down = heads[column].getAttribute("aria-sort") === "ascending";
  heads.forEach((head, index) => head.setAttribute("aria-sort", index === column ? (down ? "descending" : "ascending") : "none"));
  const rows = [...body.rows].map((row) => [keyOf(row, column), row]);
  const known = rows.filter(([key]) => key !== null).sort(([a], [b]) => (down ? compare(b, a) : compare(a, b)));
  // entries without a value stay last in both directions
  body.append(...[...known, ...rows.filter(([key]) => key === null)].map(([, row]) => row));
}

for (const table of document.querySelectorAll("table.sortable")) {
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    head.firstElementChild.addEventListener("click", () => sortBy(table, column));
  });
}

/* --- text to copy --- */

for (const button of document.querySelectorAll(".copy")) {
  button.addEventListener("click", async () => {
    const code = button.closest(".code").querySelector("code");
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "copied";
    } catch {
      getSelection().selectAllChildren(code);
      button.textContent = "selected";
    }
    setTimeout(() => { button.textContent = "copy"; }, 1500);
  });
}

/* --- videos --- */

function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

// all frames of a contact sheet as pixels; red of a label map is the label
async function decode(sheet, width, height, count) {
  const image = new Image();
  image.src = `data:image/png;base64,${sheet.sheet}`;
  await image.decode();
  const canvas = element("canvas", { width: image.naturalWidth, height: image.naturalHeight });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  return Array.from({ length: count }, (_, frame) =>
    context.getImageData((frame % sheet.columns) * width, Math.floor(frame / sheet.columns) * height, width, height).data);
}

const DIM = 0.16; // what is left of the pixels of other slots
const CELL = 24; // width of a frame in the timeline
const number = (value) => (value === null ? "–" : String(Number(value.toPrecision(4))));

class Video {
  constructor(article, content) {
    this.article = article;
    this.content = content;
    this.count = content.numbers.length;
    this.frame = 0;
    this.hovered = this.kept = null;
    this.timer = null;
    this.build();
  }

  build() {
    const { content, article } = this;
    article.tabIndex = 0;
    article.setAttribute("role", "group");
    article.setAttribute("aria-label", `${content.title}; arrow keys change the frame`);
    const scores = content.scores.map(([name, value]) => {
      const bold = element("b", { "data-value": value === null ? "" : value }, number(value));
      return element("span", {}, `${name} `, bold);
    });
    const why = element("span", { class: "why" }, content.subtitle);
    article.append(element("header", {}, element("h3", {}, content.title), why, element("div", { class: "scores" }, ...scores)));
    this.tiles = content.tracks.map((track) => this.canvas());
    const figures = content.tracks.map((track, index) =>
      element("figure", {}, this.tiles[index], element("figcaption", {}, track.title)));
    article.append(element("div", { class: "tiles" }, ...figures));
    if (content.regions.length) this.buildRegions();
    this.buildControls();
    if (content.properties) this.buildProperties();
    article.addEventListener("keydown", (event) => this.onKey(event));
  }

  canvas() {
    const { width, height } = this.content;
    return element("canvas", { width, height, style: `aspect-ratio: ${width} / ${height}` });
  }

  buildRegions() {
    this.pictures = this.content.regions.map(() => this.canvas());
    this.shares = this.content.regions.map(() => element("span", { class: "share" }));
    this.buttons = this.content.regions.map((region, index) => {
      const color = `rgb(${region.color.join(",")})`;
      const name = element("span", { class: "name" }, region.name);
      const button = element("button", { type: "button", "aria-pressed": "false", style: `--slot: ${color}`, title: `${region.name}: hover to light its pixels, click to keep them lit` },
        this.pictures[index], name, this.shares[index]);
      button.addEventListener("mouseenter", () => this.light(index));
      button.addEventListener("mouseleave", () => this.light(null));
      button.addEventListener("focus", () => this.light(index));
      button.addEventListener("blur", () => this.light(null));
      button.addEventListener("click", () => this.keep(index));
      return button;
    });
    this.article.append(element("div", { class: "regions" }, ...this.buttons));
    for (const tile of this.tiles) {
      tile.addEventListener("mousemove", (event) => this.light(this.regionAt(tile, event)));
      tile.addEventListener("mouseleave", () => this.light(null));
      tile.addEventListener("click", (event) => this.keep(this.regionAt(tile, event)));
    }
    this.timeline = element("canvas", { class: "timeline", width: CELL * this.count, height: 50, role: "img", "aria-label": "Share of pixels over the frames" });
    const choose = (event) => {
      const box = this.timeline.getBoundingClientRect();
      this.go(Math.floor(((event.clientX - box.left) / box.width) * this.count));
    };
    this.timeline.addEventListener("click", choose);
    this.timeline.addEventListener("pointermove", (event) => { if (event.buttons & 1) choose(event); });
    this.article.append(this.timeline);
  }

  regionAt(tile, event) {
    if (!this.labels) return null;
    const { width, height } = this.content, box = tile.getBoundingClientRect();
    const x = Math.min(width - 1, Math.max(0, Math.floor(((event.clientX - box.left) / box.width) * width)));
    const y = Math.min(height - 1, Math.max(0, Math.floor(((event.clientY - box.top) / box.height) * height)));
    const label = this.labels[this.frame][4 * (y * width + x)];
    const index = this.content.regions.findIndex((region) => region.label === label);
    return index < 0 ? null : index;
  }

  buildControls() {
    const button = (text, label, action) => {
      const made = element("button", { type: "button", "aria-label": label }, text);
      made.addEventListener("click", action);
      return made;
    };
    this.player = button("play", "Play or pause", () => this.play());
    this.slider = element("input", { type: "range", min: 0, max: this.count - 1, value: 0, "aria-label": "Frame" });
    this.slider.addEventListener("input", () => this.go(Number(this.slider.value)));
    this.output = element("output");
    this.article.append(element("div", { class: "controls" },
      button("‹", "Previous frame", () => this.go(this.frame - 1)), this.player,
      button("›", "Next frame", () => this.go(this.frame + 1)), this.slider, this.output));
  }

  buildProperties() {
    const { columns, rows } = this.content.properties;
    const head = element("tr", {}, ...columns.map((column) => element("th", { scope: "col" }, column)));
    this.cells = [];
    const body = rows.map((row, index) => {
      const cells = row.map((value) => {
        const cell = element("td", { class: "short" });
        this.cells.push([cell, value]);
        return cell;
      });
      const made = element("tr", {}, ...cells);
      made.addEventListener("mouseenter", () => this.light(index));
      made.addEventListener("mouseleave", () => this.light(null));
      return made;
    });
    const table = element("table", {}, element("thead", {}, head), element("tbody", {}, ...body));
    this.article.append(element("div", { class: "scroll", tabindex: 0, role: "group", "aria-label": "Properties of the objects" }, table));
  }

  async load() {
    const { tracks, regions, labels, width, height } = this.content;
    const read = (sheet) => (sheet ? decode(sheet, width, height, this.count) : null);
    this.frames = await Promise.all(tracks.map(read));
    this.labels = await read(labels);
    this.painted = await Promise.all(regions.map((region) => read(region.pictures)));
    this.draw();
    this.article.dataset.ready = "true";
  }

  onKey(event) {
    if (event.target === this.slider || event.ctrlKey || event.metaKey || event.altKey) return;
    const steps = { ArrowLeft: this.frame - 1, ArrowRight: this.frame + 1, Home: 0, End: this.count - 1 };
    if (event.key in steps) this.go(steps[event.key]);
    else if (event.key === " " && event.target === this.article) this.play();
    else if (event.key === "Escape") this.keep(null);
    else return;
    event.preventDefault();
  }

  go(frame) {
    this.frame = Math.max(0, Math.min(this.count - 1, frame));
    this.draw();
  }

  play() {
    if (this.timer) clearInterval(this.timer);
    this.timer = this.timer ? null : setInterval(() => {
      this.frame = (this.frame + 1) % this.count;
      this.draw();
    }, 1000 / 6);
    this.player.textContent = this.timer ? "pause" : "play";
  }

  light(index) { this.hovered = index; this.draw(); }

  keep(index) { this.kept = this.kept === index ? null : index; this.draw(); }

  get lit() { return this.hovered ?? this.kept; }

  draw() {
    if (!this.frames) return;
    const { content, frame } = this;
    const lit = this.lit === null ? null : content.regions[this.lit]?.label ?? null;
    const owners = this.labels ? this.labels[frame] : null;
    content.tracks.forEach((track, index) => this.paint(this.tiles[index], this.frames[index][frame], track.colors, owners, lit));
    this.article.dataset.frame = frame;
    this.article.dataset.lit = this.lit ?? "";
    this.slider.value = frame;
    this.slider.setAttribute("aria-valuetext", `frame ${content.numbers[frame]}`);
    this.output.textContent = `frame ${content.numbers[frame]} of ${content.numbers[this.count - 1]}`;
    if (content.regions.length) this.drawRegions(owners);
    for (const [cell, value] of this.cells ?? []) cell.textContent = Array.isArray(value) ? value[frame] : value;
  }

  // pixels of other regions are dimmed towards grey
  paint(canvas, pixels, colors, owners, lit) {
    const context = canvas.getContext("2d");
    const image = context.createImageData(canvas.width, canvas.height);
    for (let i = 0; i < pixels.length; i += 4) {
      const color = colors ? colors[pixels[i]] ?? [0, 0, 0] : null;
      const dim = lit !== null && owners[i] !== lit;
      for (let c = 0; c < 3; c++) {
        const value = color ? color[c] : pixels[i + c];
        image.data[i + c] = dim ? DIM * value + (1 - DIM) * 70 : value;
      }
      image.data[i + 3] = 255;
    }
    context.putImageData(image, 0, 0);
  }

  drawRegions(owners) {
    const { content, frame } = this;
    content.regions.forEach((region, index) => {
      const context = this.pictures[index].getContext("2d");
      const image = context.createImageData(content.width, content.height);
      if (this.painted[index]) image.data.set(this.painted[index][frame]);
      else {
        image.data.set(this.frames[0][frame]);
        for (let i = 0; i < owners.length; i += 4) if (owners[i] !== region.label) image.data[i + 3] = 0;
      }
      context.putImageData(image, 0, 0);
      this.shares[index].textContent = `${(100 * region.share[frame]).toFixed(1)} %`;
      this.buttons[index].classList.toggle("lit", this.lit === index);
      this.buttons[index].setAttribute("aria-pressed", String(this.kept === index));
    });
    const context = this.timeline.getContext("2d"), { width, height } = this.timeline;
    context.clearRect(0, 0, width, height);
    // slots own all pixels of a frame, objects only some
    const totals = content.numbers.map((_, t) => content.regions.reduce((sum, region) => sum + region.share[t], 0));
    const largest = Math.max(...totals, 1e-6);
    for (let t = 0; t < this.count; t++) {
      let top = height - 4;
      content.regions.forEach((region, index) => {
        const size = (region.share[t] / largest) * (height - 4);
        context.globalAlpha = (this.lit === null || this.lit === index ? 1 : 0.15) * (t === frame ? 1 : 0.75);
        context.fillStyle = `rgb(${region.color.join(",")})`;
        context.fillRect(CELL * t, top - size, CELL - 1, size);
        top -= size;
      });
      context.globalAlpha = 1;
      if (t === frame) {
        context.fillStyle = getComputedStyle(document.documentElement).getPropertyValue("--accent");
        context.fillRect(CELL * t, height - 3, CELL - 1, 3);
      }
    }
  }
}

const watcher = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (entry.isIntersecting) {
      watcher.unobserve(entry.target);
      entry.target.video.load();
    }
  }
}, { rootMargin: "600px" });

for (const article of document.querySelectorAll(".video")) {
  const source = article.querySelector("script");
  article.video = new Video(article, JSON.parse(source.textContent));
  source.remove();
  watcher.observe(article);
}
