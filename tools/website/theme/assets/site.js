// Formulas: what the Markdown marked as TeX, by the KaTeX that lies beside the pages.
document.querySelectorAll(".arithmatex").forEach(place => {
  const tex = place.textContent.trim().replace(/^\\[([]/, "").replace(/\\[)\]]$/, "")
  katex.render(tex, place, { displayMode: place.tagName === "DIV", throwOnError: false })
})

// What is wider than the page can be scrolled, by keyboard too; tables get their box a little later.
const boxes = ".md-typeset pre > code, .md-typeset__scrollwrap, div.arithmatex"
const reach = () => document.querySelectorAll(boxes).forEach(box => {
  if (box.scrollWidth > box.clientWidth) box.tabIndex = 0
})
reach()
addEventListener("resize", reach)
new MutationObserver(reach).observe(document.body, { childList: true, subtree: true })
