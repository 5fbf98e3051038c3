    fprintf(out, "%s: error: %s\n", program, what);
}
