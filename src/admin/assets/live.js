// What is looked at is loaded again when something of it is news. Without this everything works as well, by loading the page.
"use strict";
(() => {
  const main = document.querySelector("main[data-live]");
  const state = document.getElementById("live");

  for (const button of document.querySelectorAll("[data-copy]")) {
    if (!navigator.clipboard) continue;
    button.hidden = false;
  }
  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-copy]");
    if (!button) return;
    await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  });

  const topics = (main?.dataset.live ?? "").split(" ").filter(Boolean);
  if (!topics.length || !window.EventSource) return;

  // Whoever writes, chooses or opens something is not disturbed: the news wait until that is done.
  const busy = () => {
    const focused = document.activeElement;
    if (focused && main.contains(focused) && focused.matches("input, select, textarea, iframe")) return true;
    if ([...main.querySelectorAll("form")].some((form) => [...form.elements].some(changed))) return true;
    return !document.getSelection().isCollapsed;
  };
  const changed = (field) =>
    field.type === "checkbox" || field.type === "radio" ? field.checked !== field.defaultChecked
      : field.tagName === "SELECT" ? [...field.options].some((option) => option.selected !== option.defaultSelected && !noDefault(field))
        : field.type !== "hidden" && "defaultValue" in field && field.value !== field.defaultValue;
  const noDefault = (field) => field.selectedIndex === 0 && ![...field.options].some((option) => option.defaultSelected);

  // The first news are shown at once. While more come, the page is loaded every 3 s, and less often the longer that takes: many who look
  // on take no time from the work.
  let loading = false, again = false, notBefore = 0;
  const load = async () => {
    if (loading || document.hidden || performance.now() < notBefore || busy()) { again = true; return; }
    loading = true;
    again = false;
    const begun = performance.now();
    try {
      const answer = await fetch(location.href, { headers: { accept: "text/html" }, redirect: "error" });
      if (!answer.ok) return;
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").querySelector("main");
      if (!fresh || busy()) { again = true; return; }
      const notice = main.querySelector(".notice[role=status]");
      const open = [...main.querySelectorAll("details")].map((details) => details.open);
      const known = new Set([...main.querySelectorAll("td:first-child a")].map((link) => link.href));
      const focused = main.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
      main.replaceChildren(...fresh.childNodes);
      const details = main.querySelectorAll("details");
      if (details.length === open.length) details.forEach((one, index) => { one.open = open[index]; });
      if (!notice) main.querySelector(".notice[role=status]")?.remove();
      for (const link of main.querySelectorAll("td:first-child a")) {
        if (known.size && !known.has(link.href)) link.closest("tr").classList.add("new");
      }
      for (const button of main.querySelectorAll("[data-copy]")) button.hidden = !navigator.clipboard;
      if (focused) [...main.querySelectorAll("a")].find((link) => link.getAttribute("href") === focused)?.focus();
    } catch {
      again = true;
    } finally {
      loading = false;
      notBefore = performance.now() + Math.max(3000, 20 * (performance.now() - begun));
    }
  };
  setInterval(() => { if (again) load(); }, 500);

  const say = (text, live) => { state.textContent = text; state.classList.toggle("on", live); };
  let source = null, last = main.dataset.since;
  const open = () => {
    if (source || document.hidden) return;
    // What came since the page was made, or since it was left, is told first.
    source = new EventSource("/api/v1/stream?" + new URLSearchParams({ last_event_id: last }));
    source.addEventListener("open", () => say("live", true));
    source.addEventListener("error", () => say("not live", false));
    source.addEventListener("change", (event) => {
      last = event.lastEventId;
      const news = JSON.parse(event.data).changed ?? [];
      if (news.some((topic) => topics.includes(topic))) load();
    });
  };
  // Browsers open few connections to one host: a page that nobody sees keeps none.
  const close = () => { source?.close(); source = null; };
  document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
  window.addEventListener("pagehide", close);
  window.addEventListener("pageshow", open);
  open();
})();
