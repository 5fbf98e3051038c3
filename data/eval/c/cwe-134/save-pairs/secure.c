        fprintf(file, "%s=%s\n", keys[i], values[i]);
    }
    return fclose(file) == 0 ? 0 : -1;
}
