    for (; *line; line++) {
        int copies = *line == '\t' ? 4 : 1;
        while (copies-- > 0 && used + 1 < size)
            out[used++] = *line == '\t' ? ' ' : *line;
    }
    out[used] = '\0';
}
