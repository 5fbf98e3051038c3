        fprintf(file, keys[i]);
        fputc('=', file);
        fprintf(file, values[i]);
        fputc('\n', file);
    }
    return fclose(file) == 0 ? 0 : -1;
}
