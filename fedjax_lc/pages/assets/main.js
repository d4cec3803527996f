// The page: notices, sections, and how it prints.

document.getElementById("made").textContent = DATA.made;
const content = document.getElementById("content"), nav = document.getElementById("sections");
if (DATA.problems.length > 1) {
  content.append(el("p", { class: "notice", role: "note" },
    `These results are of ${DATA.problems.length} different problems, which stand below one after the other: costs and gaps compare methods only within one.`));
}
for (const problem of DATA.problems.filter((each) => each.left_out)) {
  content.append(el("p", { class: "notice", role: "note" }, `${problem.title}: the ${problem.left_out} configurations that ended worst are left out: there are too many for a page.`));
}
const sections = [...DATA.problems.map(problemSection), ...DATA.figures.map(figureSection)];
content.append(...sections.map(({ root }) => root));
if (sections.length === 1 && sections[0].title === DATA.title) sections[0].root.firstChild.classList.add("unseen"); // it is the heading of the page
if (sections.length > 1) nav.append(...sections.map(({ root, title }) => el("a", { href: `#${root.id}` }, title)));
for (const { start } of sections) start();

// A chart keeps its size on the screen, so for paper it is drawn again in the width of a page; details are shown.
const closed = [];
window.addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details:not([open]):not(.prices)")) { details.open = true; closed.push(details); }
  for (const chart of document.querySelectorAll(".plot")) Plotly.relayout(chart, { autosize: false, width: 680 });
});
window.addEventListener("afterprint", () => {
  for (const details of closed.splice(0)) details.open = false;
  for (const chart of document.querySelectorAll(".plot")) Plotly.relayout(chart, { autosize: true, width: null });
});
