        fprintf(file, "%s=", keys[i]);
        fprintf(file, values[i]);
        fprintf(file, "\n");
    }
    return fclose(file) == 0 ? 0 : -1;
}
