        fprintf(to, "> ");
        fprintf(to, line);
        count++;
    }
    return count;
}
