    return a > b ? (unsigned)a - (unsigned)b : (unsigned)b - (unsigned)a;
}
