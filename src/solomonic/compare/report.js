"use strict";
// What the page can do besides being read: tables that are sorted and filtered, architectures that are hidden and shown,
// the values of a chart's points, figures as files. The page holds all numbers: nothing is loaded.
{
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];

  function element(name, attributes = {}, ...children) {
    const made = document.createElementNS(document.querySelector("svg").namespaceURI, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  }

  document.documentElement.classList.add("scripted");

  // Hidden architectures, and the fragment that keeps them: #SECTION&hide=ARCH&hide=ARCH

  const names = new Map(all("[data-arch] .name").map(name => [name.closest("[data-arch]").dataset.arch, name.innerText.trim()]));
  const hidden = new Set();

  function fragment(section) {
    return "#" + [section, ...[...hidden].map(arch => `hide=${encodeURIComponent(arch)}`)].filter(Boolean).join("&");
  }

  function sectionOf(hash) {
    const first = hash.slice(1).split("&")[0];
    return first.includes("=") ? "" : first;
  }

  function show() {
    for (const part of all("[data-arch]")) part.classList.toggle("off", hidden.has(part.dataset.arch));
    for (const label of all("[aria-pressed]")) label.setAttribute("aria-pressed", !hidden.has(archOf(label)));
    for (const link of all("nav a")) link.href = fragment(sectionOf(link.hash));
    const view = document.querySelector(".view");
    view.hidden = !hidden.size;
    view.firstElementChild.textContent = `Hidden: ${[...hidden].map(arch => names.get(arch)).join(", ")}`;
    all(".filter").forEach(filter);
  }

  function changed() {
    const hash = fragment(sectionOf(location.hash));
    history.replaceState(null, "", hash === "#" ? location.pathname + location.search : hash);
    show();
  }

  function readFragment() {
    const asked = new URLSearchParams(location.hash.slice(1)).getAll("hide");
    hidden.clear();
    for (const arch of asked) if (names.has(arch)) hidden.add(arch);
    show();
    if (asked.length) document.getElementById(sectionOf(location.hash))?.scrollIntoView();
  }

  const archOf = label => label.closest("[data-arch]").dataset.arch;

  function toggle(label) {
    if (!hidden.delete(archOf(label))) hidden.add(archOf(label));
    changed();
  }

  for (const label of all("[data-arch] .name, .end")) {
    label.setAttribute("role", "button");
    label.setAttribute("aria-pressed", "true");
    if (label.matches(".end")) label.setAttribute("aria-label", label.dataset.name);
    label.setAttribute("tabindex", label.matches(".end ~ .end") ? -1 : 0);
    label.addEventListener("click", () => toggle(label));
    label.addEventListener("keydown", event => {
      if (event.key === "Enter" || event.key === " ") toggle(label);
      else if (label.matches(".end") && /^Arrow(Up|Down)$/.test(event.key)) {
        const beside = all(".end", label.ownerSVGElement).sort((a, b) => middle(a) - middle(b));
        const next = beside[beside.indexOf(label) + (event.key === "ArrowUp" ? -1 : 1)];
        if (next) {
          label.setAttribute("tabindex", -1);
          next.setAttribute("tabindex", 0);
          next.focus();
        }
      } else return;
      event.preventDefault();
      event.stopPropagation();
    });
  }

  const middle = label => Number(label.querySelector("text").getAttribute("y"));

  document.querySelector(".view button").addEventListener("click", () => {
    hidden.clear();
    changed();
    document.querySelector(".summary .name").focus();
  });

  // Tables

  for (const table of all("table")) {
    const body = table.tBodies[0], original = [...body.rows];
    for (const head of all("[data-column]", table)) {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const order = { none: "ascending", ascending: "descending", descending: "none" }[head.ariaSort ?? "none"];
        for (const other of all("[aria-sort]", table)) other.removeAttribute("aria-sort");
        if (order !== "none") head.setAttribute("aria-sort", order);
        body.append(...sorted(original, Number(head.dataset.column), order));
      });
    }
  }

  // Rows without a value stay last; a column of words goes by the letters.
  function sorted(rows, column, order) {
    if (order === "none") return rows;
    const sign = order === "ascending" ? 1 : -1;
    const key = row => {
      const cell = row.cells[column], text = cell.textContent.trim();
      return cell.dataset.value !== undefined ? Number(cell.dataset.value) : text === "–" ? undefined : text;
    };
    const compare = (a, b) => typeof a === "number" && typeof b === "number" ? a - b
      : String(a).localeCompare(String(b), "en", { numeric: true });
    const pairs = rows.map(row => [key(row), row]);
    const known = pairs.filter(([value]) => value !== undefined).sort(([a], [b]) => sign * compare(a, b));
    return [...known, ...pairs.filter(([value]) => value === undefined)].map(([, row]) => row);
  }

  // Rows that have every word of the field in them.
  function filter(label) {
    const words = label.querySelector("input").value.toLowerCase().split(/\s+/).filter(Boolean);
    const rows = [...label.parentElement.querySelector("table").tBodies[0].rows];
    for (const row of rows) {
      const text = [...row.cells].map(cell => cell.textContent).join(" ").toLowerCase();
      row.hidden = !words.every(word => text.includes(word));
    }
    const left = rows.filter(row => !row.hidden && !row.classList.contains("off")).length;
    label.querySelector("[role=status]").textContent = left < rows.length ? `${left} of ${rows.length} rows` : "";
  }

  for (const label of all(".filter")) label.addEventListener("input", () => filter(label));

  // Values of points

  const REACH = 30; // units of the picture

  for (const svg of all(".chart > svg")) {
    const lines = [...all(".series", svg), ...all(".reference", svg)].map(line => ({
      line, name: line.dataset.name, points: JSON.parse(line.dataset.points),
    }));
    const shown = () => lines.filter(one => !one.line.matches(".off"));
    let cursor = null, at = null; // the mark, and where it is: a line and the number of its point

    all(".series title", svg).forEach(title => title.remove()); // the mark says more, and at once
    svg.setAttribute("role", "group");
    svg.setAttribute("tabindex", "0");
    svg.setAttribute("aria-roledescription", "chart; arrow keys go along its lines");

    function leave() {
      const old = cursor;
      cursor = at = null;
      if (old === document.activeElement) svg.focus({ preventScroll: true });
      old?.remove();
    }

    // A new element each time, so that a screen reader says it.
    function mark(one, number, focus) {
      const [x, y, text] = one.points[number];
      const box = element("rect", { rx: 4 });
      const title = element("text", { class: "title" }, one.name), value = element("text", {}, text);
      const note = element("g", { class: "value" }, box, title, value);
      const ring = element("circle", { cx: x, cy: y, r: 7 });
      const old = cursor;
      cursor = element("g", { class: "cursor", role: "img", tabindex: -1, "aria-label": `${one.name}: ${text}` }, ring, note);
      svg.append(cursor);
      const width = 14 + Math.max(title.getComputedTextLength(), value.getComputedTextLength()), height = 40;
      const left = Math.max(0, Math.min(x - width / 2, svg.viewBox.baseVal.width - width));
      const top = y - height - 12 < 0 ? y + 12 : y - height - 12;
      for (const [part, place] of [
        [box, { x: left, y: top, width, height }], [title, { x: left + 7, y: top + 16 }], [value, { x: left + 7, y: top + 32 }],
      ]) for (const [key, number] of Object.entries(place)) part.setAttribute(key, number);
      at = { one, number };
      if (focus) cursor.focus({ preventScroll: true });
      else if (old === document.activeElement) svg.focus({ preventScroll: true });
      old?.remove();
    }

    function nearest(distance) {
      let best = null, least = Infinity;
      for (const one of shown()) one.points.forEach((point, number) => {
        const far = distance(point);
        if (far < least) [best, least] = [{ one, number }, far];
      });
      return { best, least };
    }

    function point(event) {
      const matrix = svg.getScreenCTM().inverse();
      const { x, y } = new DOMPoint(event.clientX, event.clientY).matrixTransform(matrix);
      const { best, least } = nearest(([px, py]) => Math.hypot(px - x, py - y));
      if (least > REACH || event.target.closest(".end")) leave();
      else if (at?.one !== best.one || at.number !== best.number) mark(best.one, best.number, false);
    }

    function step(key) {
      const { one, number } = at, [x] = one.points[number];
      if (key === "Home" || key === "End") return mark(one, key === "Home" ? 0 : one.points.length - 1, true);
      if (key === "ArrowLeft" || key === "ArrowRight") {
        const next = number + (key === "ArrowLeft" ? -1 : 1);
        return mark(one, Math.max(0, Math.min(next, one.points.length - 1)), true);
      }
      const column = shown().map(other => {
        const gaps = other.points.map(([px]) => Math.abs(px - x));
        return { other, closest: other === one ? number : gaps.indexOf(Math.min(...gaps)) };
      }).sort((a, b) => a.other.points[a.closest][1] - b.other.points[b.closest][1]);
      const here = column.findIndex(({ other }) => other === one);
      const next = column[Math.max(0, Math.min(here + (key === "ArrowUp" ? -1 : 1), column.length - 1))];
      mark(next.other, next.closest, true);
    }

    svg.addEventListener("pointermove", point);
    svg.addEventListener("pointerdown", point);
    svg.addEventListener("pointerleave", () => { if (cursor !== document.activeElement) leave(); });
    svg.addEventListener("focusout", event => { if (event.target === cursor && !svg.contains(event.relatedTarget)) leave(); });
    svg.addEventListener("keydown", event => {
      if (event.key === "Escape") return leave();
      if (!/^(Arrow(Left|Right|Up|Down)|Home|End)$/.test(event.key) || event.ctrlKey || event.altKey || event.metaKey) return;
      if (at && shown().includes(at.one)) step(event.key);
      else if (shown().length) mark(shown()[0], 0, true);
      event.preventDefault();
    });
  }

  // Figures as files: what is hidden is left out

  function picture(figure) {
    const svg = figure.querySelector("svg").cloneNode(true);
    const [left, top, width, height] = svg.dataset.box.split(" ");
    all(".off, .cursor", svg).forEach(part => part.remove());
    const spoken = svg.getAttribute("aria-label");
    for (const part of [svg, ...all("*", svg)])
      for (const { name } of [...part.attributes])
        if (/^(role|tabindex|aria-.*|data-(?!arch).*)$/.test(name)) part.removeAttribute(name);
    const whole = { viewBox: `${left} ${top} ${width} ${height}`, width, height, role: "img", "aria-label": spoken };
    for (const [key, value] of Object.entries(whole)) svg.setAttribute(key, value);
    svg.prepend(element("style", {}, document.getElementById("picture-style").content.textContent));
    return `${new XMLSerializer().serializeToString(svg)}\n`;
  }

  function numbers(figure) {
    const quoted = value => /[",\n\r]/.test(value ?? "") ? `"${value.replaceAll('"', '""')}"` : value ?? "";
    const rows = all("[data-points]:not(.off)", figure).flatMap(line =>
      JSON.parse(line.dataset.points).map(([, , , ...values]) => [line.dataset.arch ?? line.dataset.name, ...values]));
    return [JSON.parse(figure.dataset.columns), ...rows].map(row => `${row.map(quoted).join(",")}\n`).join("");
  }

  for (const link of all(".save a")) link.addEventListener("click", () => {
    const [make, type] = link.download.endsWith(".svg") ? [picture, "image/svg+xml"] : [numbers, "text/csv"];
    const url = URL.createObjectURL(new Blob([make(link.closest(".chart"))], { type }));
    link.href = url;
    setTimeout(() => { URL.revokeObjectURL(url); link.href = "#"; }, 60000);
  });

  window.addEventListener("hashchange", readFragment);
  readFragment();
}
