// Questions to the process that serves this page (`musegnn explore`): the whole vectors and all stored pairs.

const LIVE_LENGTH = 50;

class Live {
  constructor(atlas) { this.atlas = atlas; }

  async ask(path, values) {
    try {
      const answer = await fetch(`api/${path}?${new URLSearchParams(values)}`);
      const found = await answer.json();
      if (!answer.ok) throw new Error(found.error);
      return found;
    } catch (error) {
      toast(`No fresh answer: ${error.message}`);
      return null;
    }
  }

  async neighbors(i, by, side) {
    const { atlas } = this;
    const found = await this.ask("neighbors", { gene: atlas.gene(i), dataset: atlas.of("dataset", i), by, side, k: LIVE_LENGTH });
    return found && found.rows.map((row) => ({ point: atlas.find(row.gene, row.dataset), score: row.cosine })).filter((row) => row.point >= 0);
  }

  async contrast(a, b) {
    const { atlas } = this;
    const found = await this.ask("contrast", { gene: atlas.gene(a), other: atlas.gene(b), a: atlas.of("dataset", a), b: atlas.of("dataset", b) });
    if (!found) return null;
    const side = (dataset, gene, z, limit) => ({ point: atlas.find(gene, atlas.of("dataset", dataset)), z, limit });
    return { missing: found.missing, rows: found.rows.map((row) => {
      const to = side(b, row.gene_b, row.z_b, found.limits[1]);
      return { point: to.point, a: side(a, row.gene_a, row.z_a, found.limits[0]), b: to };
    }) };
  }
}
