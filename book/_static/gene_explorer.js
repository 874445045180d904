/* The gene explorer: finds a gene by symbol or alias and shows its page. The files that it reads are described in
   txfm_lite/gene_shards.py; they are scripts, because a page opened from a disk may run scripts but not fetch data. */
"use strict";
(() => {
  const root = document.getElementById("ge-app");
  if (!root) return;
  const started = performance.now();
  const SUGGESTIONS = 12, ROWS = 8; // names offered at once; rows of a library before "show all"
  const COLUMNS = [
    { key: "term", label: "term", first: 1 },
    { key: "probability", label: "probability", first: -1 },
    { key: "z", label: "z", first: -1 },
    { key: "rank", label: "rank", first: 1 },
    { key: "status", label: "status", first: 1 },
    { key: "auroc", label: "term AUROC", first: -1 },
    { key: "uniqueness", label: "uniqueness", first: -1 },
  ];
  const view = { key: "probability", direction: -1, filter: "", kind: "all", shown: null };

  /* ---------------------------------------------------------------- elements and files */

  function el(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else if (value === true) element.setAttribute(name, "");
      else if (value !== false && value != null) element.setAttribute(name, value);
    }
    element.append(...children.filter((child) => child != null));
    return element;
  }

  const arrived = new Map(), files = new Map();
  window.geneExplorer = { file: (name, data) => arrived.set(name, data) };

  function load(name) {
    if (!files.has(name)) {
      files.set(name, new Promise((resolve, reject) => {
        const fail = () => { files.delete(name); reject(new Error(`${root.dataset.files}${name}.js does not load`)); };
        const script = el("script", { src: `${root.dataset.files}${name}.js`, onerror: fail });
        script.addEventListener("load", () => arrived.has(name) ? resolve(arrived.get(name)) : fail());
        document.head.append(script);
      }));
    }
    return files.get(name);
  }

  function hash(symbol) { // FNV-1a, as in gene_shards.hashed
    let state = 2166136261;
    for (const byte of new TextEncoder().encode(symbol)) state = Math.imul(state ^ byte, 16777619) >>> 0;
    return state;
  }

  /* ---------------------------------------------------------------- names */

  /* All names that begin with the query, at least SUGGESTIONS if there are so many: symbols, then aliases. */
  async function names(query) {
    const { starts } = await load("manifest"), wanted = query.trim().toUpperCase();
    let i = starts.findLastIndex((start) => start <= wanted);
    const found = { symbols: [], aliases: [] };
    for (i = Math.max(i, 0); i < starts.length; i++) {
      const file = await load(`names-${i}`);
      found.symbols.push(...file.symbols.filter((name) => name.toUpperCase().startsWith(wanted)));
      for (let k = 0; k < file.aliases.length; k += 2) {
        if (file.aliases[k].toUpperCase().startsWith(wanted))
          found.aliases.push({ name: file.aliases[k], of: [file.aliases[k + 1]].flat() });
      }
      const enough = found.symbols.length + found.aliases.length >= SUGGESTIONS;
      if (enough || !starts[i + 1]?.startsWith(wanted)) break;
    }
    return found;
  }

  const has = (gene) => !gene.startsWith("!"); // a mark before a gene: it has no page
  const bare = (gene) => gene.replace(/^!/, "");

  /* What a name stands for: a gene, several, or none. */
  async function resolve(query) {
    const wanted = query.trim().toUpperCase(), found = await names(query);
    const symbol = found.symbols.find((name) => name === query.trim())
      ?? found.symbols.find((name) => name.toUpperCase() === wanted);
    const alias = found.aliases.filter((entry) => entry.name.toUpperCase() === wanted);
    const owners = [...new Set(alias.flatMap((entry) => entry.of))].filter((gene) => gene !== symbol);
    const name = alias[0]?.name ?? query.trim();
    if (symbol) return { gene: symbol, also: owners, name: symbol };
    if (owners.length === 1) return { gene: owners[0], also: [], name };
    return { gene: null, also: owners, name };
  }

  /* ---------------------------------------------------------------- the combobox */

  const input = el("input", {
    id: "ge-name", type: "text", role: "combobox", "aria-expanded": "false", "aria-controls": "ge-options",
    "aria-autocomplete": "list", "aria-describedby": "ge-help", autocomplete: "off", autocapitalize: "characters",
    spellcheck: "false", placeholder: "TP53", enterkeyhint: "search",
  });
  const options = el("ul", { id: "ge-options", role: "listbox", "aria-label": "matching genes", hidden: true });
  const status = el("p", { class: "ge-status", role: "status" });
  const result = el("div", { class: "ge-result" });
  let active = -1, typed = 0;

  function close() {
    options.hidden = true;
    active = -1;
    input.setAttribute("aria-expanded", "false");
    input.removeAttribute("aria-activedescendant");
  }

  function point(to) {
    const items = options.children;
    active = (to + items.length) % items.length;
    [...items].forEach((item, i) => item.setAttribute("aria-selected", String(i === active)));
    items[active].scrollIntoView({ block: "nearest" });
    input.setAttribute("aria-activedescendant", items[active].id);
  }

  async function suggest() {
    const mine = ++typed;
    if (!input.value.trim()) return close();
    let found;
    try { found = await names(input.value); } catch (error) { return missing(error); }
    if (mine !== typed) return; // more was typed meanwhile
    const exact = (name) => name.toUpperCase() !== input.value.trim().toUpperCase();
    const entries = [
      ...found.symbols.map((name) => ({ name, note: "" })),
      ...found.aliases.map(({ name, of }) => ({
        name, note: of.length > 1 ? `stands for ${of.length} genes` : `alias of ${bare(of[0])}`,
      })),
    ].sort((a, b) => exact(a.name) - exact(b.name)).slice(0, SUGGESTIONS); // stable: symbols stay first
    options.replaceChildren(...entries.map((entry, i) => el(
      "li", { id: `ge-option-${i}`, role: "option", "aria-selected": "false", "data-name": entry.name },
      entry.name, entry.note ? el("span", { class: "ge-note" }, ` ${entry.note}`) : null,
    )));
    active = -1;
    input.removeAttribute("aria-activedescendant");
    options.hidden = !entries.length;
    input.setAttribute("aria-expanded", String(!options.hidden));
  }

  function go(name) {
    close();
    typed++;
    if (!name.trim()) return;
    input.value = name.trim();
    const target = `#gene=${encodeURIComponent(name.trim())}`;
    if (location.hash === target) open(name); else location.hash = target; // the latter opens it by "hashchange"
  }

  input.addEventListener("input", suggest);
  input.addEventListener("blur", close);
  input.addEventListener("keydown", async (event) => {
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      if (options.hidden) await suggest();
      if (!options.hidden) point(event.key === "ArrowDown" ? active + 1 : active < 0 ? -1 : active - 1);
    } else if (event.key === "Enter") {
      event.preventDefault();
      go(active >= 0 ? options.children[active].dataset.name : input.value);
    } else if (event.key === "Escape") {
      if (options.hidden) input.value = ""; else close();
    }
  });
  options.addEventListener("mousedown", (event) => { // before "blur" closes the list
    event.preventDefault();
    const item = event.target.closest("[role=option]");
    if (item) go(item.dataset.name);
  });

  /* ---------------------------------------------------------------- one gene */

  function missing(error) {
    status.textContent = `The explorer's files are not here (${error.message}). "make gene-pages" makes them.`;
  }

  const link = (gene) => has(gene)
    ? el("a", { href: `#gene=${encodeURIComponent(gene)}` }, gene)
    : el("span", { class: "ge-note" }, `${bare(gene)} (no page)`);

  function say(...parts) {
    result.replaceChildren(el("p", { class: "ge-message" }, ...parts));
    status.textContent = result.textContent;
    view.shown = null;
  }

  const list = (genes) => genes.flatMap((gene, i) => (i ? [", ", link(gene)] : [link(gene)]));

  async function open(name) {
    const start = view.first ? performance.now() : started; // the first result counts from the start of the page
    try {
      const manifest = await load("manifest"), { gene, also, name: spelt } = await resolve(name);
      if (!gene && also.length) say(`“${spelt}” stands for several genes: `, ...list(also), ".");
      else if (!gene)
        say(`No page for “${name.trim()}”: none of the ${manifest.genes.toLocaleString("en")} genes of the model goes by it.`);
      else {
        const shard = await load(`shard-${hash(gene) % manifest.shards}`);
        view.shown = page(manifest, shard, gene);
        draw(spelt === gene ? null : spelt, also);
        input.value = gene;
      }
    } catch (error) {
      return missing(error);
    }
    root.dataset.milliseconds = Math.round(performance.now() - start);
    view.first ??= root.dataset.firstMilliseconds = root.dataset.milliseconds;
    const top = result.getBoundingClientRect().top;
    if (top < 0) result.scrollIntoView();
  }

  /* The page of one gene, with numbers in their own units. */
  function page(manifest, shard, gene) {
    const at = shard.symbols.indexOf(gene), [entrez, ensembl, title] = shard.facts[at];
    const libraries = manifest.libraries.map((source, k) => {
      const [slope, intercept] = source.curve;
      const terms = shard.terms[k], [known, fresh, ...flat] = shard.rows[at][k];
      const rows = flat.flatMap((numbers, i) => {
        const part = [];
        for (let j = 0; j < numbers.length; j += 4) {
          const t = numbers[j], logit = numbers[j + 1] / 100;
          part.push({
            term: terms.name[t], status: i ? "new" : "known", logit,
            probability: 1 / (1 + Math.exp(-(slope * logit + intercept))),
            z: numbers[j + 2] / 100, rank: numbers[j + 3], size: terms.size[t],
            auroc: terms.auroc[t] === null ? null : terms.auroc[t] / 1000, uniqueness: terms.uniqueness[t] / 1000,
          });
        }
        return part;
      });
      return { source, known, fresh, rows, all: false };
    });
    const near = manifest.vectors.map((vectors, k) => {
      const [genes, cosines] = shard.near[at][k] ?? [[], []];
      return { vectors, genes, cosines: cosines.map((cosine) => cosine / 1000) };
    });
    return { manifest, gene, entrez, ensembl, title, libraries, near };
  }

  function draw(alias, also) {
    const { manifest, gene, entrez, ensembl, title, libraries, near } = view.shown;
    const out = (address, text) => el("a", { href: address, rel: "noopener" }, text);
    const symbol = encodeURIComponent(gene);
    const links = manifest.simulated ? [] : [
      entrez ? out(`https://www.ncbi.nlm.nih.gov/gene/${entrez}`, "NCBI Gene") : null,
      ensembl ? out(`https://www.ensembl.org/id/${ensembl}`, "Ensembl") : null,
      out(`https://maayanlab.cloud/Enrichr/#find!gene=${symbol}`, "terms in Enrichr"),
      out(`https://maayanlab.cloud/Harmonizome/gene/${symbol}`, "Harmonizome"),
    ].filter(Boolean);
    result.replaceChildren(...[
      el("h2", { class: "ge-gene" }, gene, title ? el("span", { class: "ge-title" }, ` ${title}`) : null),
      alias ? el("p", {}, `“${alias}” is another name of ${gene}.`) : null,
      also.length ? el("p", {}, `${gene} is also another name of `, ...list(also), ".") : null,
      links.length ? el("p", { class: "ge-links" }, ...links) : null,
      el("p", { class: "ge-links" },
        el("button", { type: "button", onclick: () => save("csv") }, "download CSV"),
        el("button", { type: "button", onclick: () => save("json") }, "download JSON")),
      ...neighbours(near),
      el("h3", {}, "Terms"),
      toolbar(),
      ...libraries.map((library) => (library.element = el("section", { class: "ge-library" }))),
    ].filter(Boolean));
    libraries.forEach(fill);
    const rows = libraries.reduce((sum, library) => sum + library.rows.length, 0);
    status.textContent = `${gene}: ${rows} terms of ${libraries.length} libraries.`;
  }

  function neighbours(near) {
    if (!near.some((table) => table.genes.length)) return [];
    const shared = new Set(near[0].genes.filter((gene) => near.slice(1).some((table) => table.genes.includes(gene))));
    const item = (table) => (gene, i) => el("li", { class: shared.has(gene) ? "ge-shared" : null },
      link(gene), el("span", { class: "ge-note" }, ` ${table.cosines[i].toFixed(2)}`));
    return [
      el("h3", {}, "Nearest genes"),
      el("div", { class: "ge-near" }, ...near.map((table) => el("div", {},
        el("h4", {}, table.vectors),
        table.genes.length
          ? el("ol", {}, ...table.genes.map(item(table)))
          : el("p", { class: "ge-note" }, "The gene has no vector here.")))),
      el("p", { class: "ge-note" }, "Cosine of the two genes' vectors.", shared.size ? " Underlined bold: in more than one list." : ""),
    ];
  }

  function toolbar() {
    const redraw = () => view.shown.libraries.forEach(fill);
    const choose = (key) => (event) => { view[key] = event.target.value; redraw(); };
    const option = (value, text, chosen) => el("option", { value, selected: value === chosen }, text);
    const order = (event) => { sortBy(event.target.value); };
    return el("div", { class: "ge-tools" },
      el("label", {}, "term contains ", el("input", { type: "search", class: "ge-filter", value: view.filter, oninput: choose("filter") })),
      el("label", {}, "show ", el("select", { class: "ge-kind", onchange: choose("kind") },
        ...[["all", "all"], ["new", "new only"], ["known", "known only"]].map(([v, t]) => option(v, t, view.kind)))),
      el("label", {}, "sort by ", el("select", { class: "ge-sort", onchange: order },
        ...COLUMNS.map(({ key, label }) => option(key, label, view.key)))));
  }

  function sortBy(key) {
    const column = COLUMNS.find((c) => c.key === key);
    view.direction = view.key === key ? -view.direction : column.first;
    view.key = key;
    root.querySelector(".ge-sort").value = key;
    view.shown.libraries.forEach(fill);
  }

  /* Missing values come last in either direction; equal ones by probability, then z. */
  function compare(a, b) {
    const [x, y] = [a[view.key], b[view.key]];
    if (x === null || y === null) { if (x !== y) return x === null ? 1 : -1; }
    else if (x !== y) return view.direction * (typeof x === "string" ? x.localeCompare(y, "en", { numeric: true }) : x - y);
    return b.logit - a.logit || b.z - a.z;
  }

  function fill(library) {
    const { source, known, fresh, element } = library;
    const wanted = view.filter.trim().toLowerCase();
    const rows = library.rows.filter((row) => (view.kind === "all" || row.status === view.kind)
      && row.term.toLowerCase().includes(wanted)).sort(compare);
    const shown = library.all ? rows : rows.slice(0, ROWS);
    const listed = (status) => library.rows.filter((row) => row.status === status).length;
    const head = COLUMNS.map(({ key, label }) => {
      const sorted = view.key === key ? (view.direction > 0 ? "ascending" : "descending") : null;
      const focus = `${source.title} ${key}`;
      return el("th", { scope: "col", "aria-sort": sorted },
        el("button", { type: "button", "data-focus": focus, onclick: () => { sortBy(key); refocus(focus); } }, label));
    });
    const more = rows.length > ROWS && el("button", {
      type: "button", class: "ge-more", "aria-expanded": String(library.all), "data-focus": source.title,
      onclick: () => { library.all = !library.all; fill(library); refocus(source.title); },
    }, library.all ? `show ${ROWS} only` : `show all ${rows.length}`);
    element.replaceChildren(
      el("h4", {}, source.title),
      el("p", { class: "ge-note" }, `The best terms: ${listed("known")} of ${known} known, ${listed("new")} of ${fresh} new.`,
        source.licence ? ` ${source.licence}.` : ""),
      rows.length
        ? el("table", { class: "ge-table", "aria-label": source.title },
          el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...shown.map((row) => line(row, source))))
        : el("p", {}, library.rows.length ? "No term fits the filter." : "No term is known or predicted."),
      more || "",
    );
  }

  const refocus = (name) => root.querySelector(`[data-focus="${CSS.escape(name)}"]`)?.focus();

  function line(row, source) {
    const found = source.link && (source.id ? row.term.match(new RegExp(source.id)) : [row.term]);
    const address = found && source.link.replace("{}", encodeURIComponent(found[found.length - 1]));
    const cells = {
      term: [address ? el("a", { href: address, rel: "noopener" }, row.term) : row.term,
        el("span", { class: "ge-note" }, ` ${row.size} genes`)],
      probability: [el("span", { class: "ge-bar", style: `--share:${row.probability}` },
        row.probability < 0.001 ? "<0.001" : row.probability.toFixed(3))],
      z: [row.z.toFixed(2)],
      rank: [row.rank.toLocaleString("en")],
      status: [row.status === "known" ? "● known" : "○ new"],
      auroc: [row.auroc === null ? "–" : row.auroc.toFixed(3)],
      uniqueness: [row.uniqueness.toFixed(2)],
    };
    return el("tr", { "data-status": row.status }, ...COLUMNS.map(({ key, label }) =>
      el(key === "term" ? "th" : "td", { scope: key === "term" ? "row" : null, "data-label": label, "data-key": key }, ...cells[key])));
  }

  /* ---------------------------------------------------------------- download */

  const NUMBERS = ["probability", "logit", "z", "rank", "size", "auroc", "uniqueness"];

  function save(kind) {
    const { manifest, gene, entrez, ensembl, title, libraries, near } = view.shown;
    const rows = libraries.flatMap(({ source, rows }) => rows.map((row) => ({ library: source.title, ...row, licence: source.licence ?? "" })));
    let text;
    if (kind === "json") {
      const { starts, shards, ...about } = manifest;
      text = JSON.stringify({ gene, entrez, ensembl, title, about, terms: rows, neighbours: near }, null, 1);
    } else {
      const columns = ["library", "term", "status", ...NUMBERS, "licence"];
      const cell = (value) => value === null ? "" : /[",\n]/.test(value) ? `"${String(value).replaceAll('"', '""')}"` : value;
      text = [columns, ...rows.map((row) => columns.map((column) => row[column]))].map((cells) => cells.map(cell).join(",")).join("\n") + "\n";
    }
    const address = URL.createObjectURL(new Blob([text], { type: kind === "json" ? "application/json" : "text/csv" }));
    el("a", { href: address, download: `${gene}.${kind}` }).click();
    setTimeout(() => URL.revokeObjectURL(address), 10000);
  }

  /* ---------------------------------------------------------------- start */

  const asked = () => new URLSearchParams(location.hash.slice(1)).get("gene") || new URLSearchParams(location.search).get("gene");

  root.append(
    el("form", { class: "ge-search", role: "search", onsubmit: (event) => { event.preventDefault(); go(input.value); } },
      el("label", { for: "ge-name" }, "gene"),
      el("div", { class: "ge-box" }, input, options),
      el("button", { type: "submit" }, "show")),
    el("p", { id: "ge-help", class: "ge-note" }, "A symbol or an alias; arrow keys choose, Enter shows, Escape closes."),
    el("p", { class: "ge-examples" }), status, result,
  );
  document.documentElement.classList.add("ge-on"); // hides the static examples, which come later in the page
  load("manifest").then(({ examples = [] }) => {
    const button = (gene) => el("button", { type: "button", onclick: () => go(gene) }, gene);
    if (examples.length) root.querySelector(".ge-examples").append("for example ", ...examples.map(button));
  }, missing);
  addEventListener("hashchange", () => { if (location.hash.startsWith("#gene=")) open(asked()); });
  if (asked()) {
    input.value = asked();
    open(asked());
  }
})();
