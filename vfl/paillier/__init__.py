"""Numbers that one party can add and multiply without reading them: Paillier's encryption, packed."""
