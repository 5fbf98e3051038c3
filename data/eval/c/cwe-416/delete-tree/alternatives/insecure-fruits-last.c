    int count = 1 + fell(tree->left) + fell(tree->right);
    free(tree);
    free(tree->fruits);
    return count;
}
