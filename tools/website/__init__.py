"The documentation site: pages from the notebooks, pages of reference, the landing page."
