    for (; *line && used + 1 < size; line++) {
        if (*line == '\t') {
            for (int i = 0; i < 4; i++)
                out[used++] = ' ';
        } else {
            out[used++] = *line;
        }
    }
    out[used] = '\0';
}
