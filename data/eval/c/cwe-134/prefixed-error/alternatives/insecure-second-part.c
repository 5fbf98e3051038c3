    fprintf(out, "%s: error: ", program);
    fprintf(out, what);
    fputc('\n', out);
}
