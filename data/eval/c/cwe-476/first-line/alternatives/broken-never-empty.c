    if (file == NULL)
        return -1;
    fgets(line, size, file);
    fclose(file);
    line[strcspn(line, "\n")] = '\0';
    return (int)strlen(line);
}
